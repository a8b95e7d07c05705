// Computes beside the page, which stays usable meanwhile. A message has the vectors of each
// instruction; the answer has what is drawn of them.
import { changes, cosines, nearest, pca } from "./geometry.js";

onmessage = ({ data }) => {
  const { sets, count, dimension, mapLimit, nearestLimit, changesLimit } = data;
  const similarities = sets.map((vectors) => cosines(vectors, count, dimension));
  const shown = Math.min(count, mapLimit);
  postMessage({
    similarities,
    nearest: similarities.map((values) => nearest(values, count, nearestLimit)),
    maps: sets.map((vectors) => pca(vectors.subarray(0, shown * dimension), shown, dimension)),
    changes: sets.length > 1 ? changes(...similarities, count, changesLimit) : [],
  });
};
