// The choice of a theme, on every page: it is kept, see theme.js.

import { byId } from "./elements.js";

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("polyvec-theme", theme);
  } catch {
    // Storage is off: the theme lasts as long as the page.
  }
}

/** Show the theme that is in use and follow the choice. */
export function listenToTheme() {
  byId("theme").value = document.documentElement.dataset.theme ?? "";
  byId("theme").addEventListener("change", () => setTheme(byId("theme").value));
}
