// The arithmetic of the page, with no document in it: cosines, nearest texts, changes, PCA.
// Vectors are one Float32Array, `count` rows of `dimension` numbers.

/** Return the rows scaled to length 1, so that their dot products are cosines. */
export function unitRows(vectors, count, dimension) {
  const unit = new Float32Array(count * dimension);
  for (let row = 0; row < count; row++) {
    const start = row * dimension;
    let squares = 0;
    for (let k = start; k < start + dimension; k++) squares += vectors[k] * vectors[k];
    const scale = squares > 0 ? 1 / Math.sqrt(squares) : 0;
    for (let k = start; k < start + dimension; k++) unit[k] = vectors[k] * scale;
  }
  return unit;
}

/** Return the cosine of every row to every row, `count` by `count`. */
export function cosines(vectors, count, dimension) {
  const unit = unitRows(vectors, count, dimension);
  const result = new Float32Array(count * count);
  for (let i = 0; i < count; i++) {
    for (let j = i; j < count; j++) {
      let sum = 0;
      for (let k = 0, a = i * dimension, b = j * dimension; k < dimension; k++) {
        sum += unit[a + k] * unit[b + k];
      }
      result[i * count + j] = result[j * count + i] = Math.max(-1, Math.min(1, sum));
    }
  }
  return result;
}

/** Return for each row the indices of the `limit` others most similar to it, the nearest first. */
export function nearest(similarities, count, limit) {
  return Array.from({ length: count }, (_, row) => {
    const best = [];
    for (let other = 0; other < count; other++) {
      if (other === row) continue;
      const value = similarities[row * count + other];
      if (best.length === limit && value <= similarities[row * count + best[limit - 1]]) continue;
      let place = best.length;
      while (place > 0 && similarities[row * count + best[place - 1]] < value) place--;
      best.splice(place, 0, other);
      if (best.length > limit) best.pop();
    }
    return best;
  });
}

/** Return the lowest and the highest cosine of two different texts, over several matrices. */
export function range(matrices, count) {
  let low = Infinity;
  let high = -Infinity;
  for (const values of matrices) {
    for (let i = 0; i < count; i++) {
      for (let j = i + 1; j < count; j++) {
        const value = values[i * count + j];
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
  }
  return low <= high ? { low, high } : { low: 0, high: 1 };
}

/** Return the `limit` pairs whose cosine differs most, as `{i, j, before, after}`, largest first. */
export function changes(before, after, count, limit) {
  const best = [];
  const size = (pair) => Math.abs(pair.after - pair.before);
  for (let i = 0; i < count; i++) {
    for (let j = i + 1; j < count; j++) {
      const pair = { i, j, before: before[i * count + j], after: after[i * count + j] };
      if (best.length === limit && size(pair) <= size(best[limit - 1])) continue;
      let place = best.length;
      while (place > 0 && size(best[place - 1]) < size(pair)) place--;
      best.splice(place, 0, pair);
      if (best.length > limit) best.pop();
    }
  }
  return best;
}

const BLOCK = 8; // directions followed at once: more than two, so that near ties settle
const TOLERANCE = 1e-4; // of the residual, relative to the largest variance: less than a pixel
const MAX_ROUNDS = 100;
const MAX_PRODUCTS = 2e9; // seconds; vectors without any main direction would take minutes

/**
 * Return the two directions of largest variance (PCA), by subspace iteration with Rayleigh-Ritz
 * (Golub and Van Loan, Matrix Computations, 8.2): the covariance matrix is never built, so
 * a thousand vectors of 4,096 numbers are seconds. Where nothing stands out, the directions found
 * within the limit may not be the very largest; their shares are still exactly their own.
 *
 * @returns {{x: Float64Array, y: Float64Array, shares: [number, number]}} coordinates of each row,
 *   and the share of the whole variance along each axis.
 */
export function pca(vectors, count, dimension) {
  const { rows, total } = centred(vectors, count, dimension);
  const width = Math.min(BLOCK, Math.max(2, count - 1), dimension);
  const none = new Float64Array(count);
  if (count < 2 || !(total > 1e-12) || width < 2) return { x: none, y: none, shares: [0, 0] };
  let basis = orthonormal(startingBlock(width, dimension));
  let found = null;
  const rounds = Math.min(MAX_ROUNDS, Math.max(3, MAX_PRODUCTS / (2 * width * rows.length)));
  for (let round = 0; round < rounds; round++) {
    const images = basis.map((direction) => project(rows, count, dimension, direction));
    const { values, vectors: turns } = symmetricEigen(gram(images));
    basis = combine(basis, turns);
    const turned = combine(images, turns);
    const back = turned.map((image) => pullBack(rows, count, dimension, image));
    found = { values, turned, basis };
    if (residual(back, basis, values) < TOLERANCE * values[0]) break;
    basis = orthonormal(back);
  }
  const axes = [0, 1].map((k) => signed(found.turned[k], found.basis[k]));
  const shares = [0, 1].map((k) => Math.max(0, found.values[k]) / total);
  return { x: axes[0], y: axes[1], shares };
}

function centred(vectors, count, dimension) {
  const means = new Float64Array(dimension);
  for (let k = 0; k < count * dimension; k++) means[k % dimension] += vectors[k] / count;
  const rows = new Float64Array(count * dimension);
  let total = 0;
  for (let k = 0; k < rows.length; k++) {
    rows[k] = vectors[k] - means[k % dimension];
    total += rows[k] * rows[k];
  }
  return { rows, total };
}

/** The same numbers on every run, so that a map does not change when nothing has. */
function startingBlock(width, dimension) {
  let state = 12345;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  return Array.from({ length: width }, () => Float64Array.from({ length: dimension }, next));
}

function project(rows, count, dimension, direction) {
  const image = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let k = 0, at = i * dimension; k < dimension; k++) sum += rows[at + k] * direction[k];
    image[i] = sum;
  }
  return image;
}

function pullBack(rows, count, dimension, image) {
  const direction = new Float64Array(dimension);
  for (let i = 0; i < count; i++) {
    const weight = image[i];
    for (let k = 0, at = i * dimension; k < dimension; k++) direction[k] += rows[at + k] * weight;
  }
  return direction;
}

const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);

function gram(images) {
  return images.map((a) => images.map((b) => dot(a, b)));
}

/** Return columns of `block` mixed by `turns` (an orthogonal matrix, one column a result). */
function combine(block, turns) {
  return block.map((_, column) => {
    const mixed = new Float64Array(block[0].length);
    block.forEach((vector, k) => {
      for (let n = 0; n < mixed.length; n++) mixed[n] += vector[n] * turns[k][column];
    });
    return mixed;
  });
}

/** Gram-Schmidt, twice; a direction that vanishes is left as zeros. */
function orthonormal(block) {
  const done = [];
  for (const vector of block) {
    const rest = Float64Array.from(vector);
    const before = Math.sqrt(dot(rest, rest));
    for (let pass = 0; pass < 2; pass++) {
      for (const other of done) {
        const along = dot(rest, other);
        for (let n = 0; n < rest.length; n++) rest[n] -= along * other[n];
      }
    }
    const length = Math.sqrt(dot(rest, rest));
    const scale = length > 1e-10 * before && length > 0 ? 1 / length : 0;
    done.push(rest.map((value) => value * scale));
  }
  return done;
}

/** How far the first two directions are from being eigenvectors. */
function residual(back, basis, values) {
  let worst = 0;
  for (const k of [0, 1]) {
    let squares = 0;
    for (let n = 0; n < back[k].length; n++) squares += (back[k][n] - values[k] * basis[k][n]) ** 2;
    worst = Math.max(worst, Math.sqrt(squares));
  }
  return worst;
}

/** Jacobi's method for a small symmetric matrix; values fall, columns of `vectors` belong to them. */
function symmetricEigen(matrix) {
  const size = matrix.length;
  const a = matrix.map((row) => Float64Array.from(row));
  const v = matrix.map((_, i) => Float64Array.from(matrix, (__, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 30; sweep++) {
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) rotate(a, v, p, q);
    }
  }
  const order = [...a.keys()].sort((i, j) => a[j][j] - a[i][i]);
  return {
    values: order.map((i) => a[i][i]),
    vectors: v.map((row) => order.map((i) => row[i])),
  };
}

function rotate(a, v, p, q) {
  if (Math.abs(a[p][q]) < 1e-300) return;
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1);
  const s = t * c;
  for (let k = 0; k < a.length; k++) {
    [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
  }
  for (let k = 0; k < a.length; k++) {
    [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
    [v[k][p], v[k][q]] = [c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]];
  }
}

/** An axis has no direction of its own: its largest number is made positive. */
function signed(coordinates, direction) {
  let largest = 0;
  for (const value of direction) if (Math.abs(value) > Math.abs(largest)) largest = value;
  return largest < 0 ? coordinates.map((value) => -value) : coordinates;
}
