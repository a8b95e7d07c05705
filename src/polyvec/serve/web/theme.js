// Before anything is drawn: the theme that was picked last. Nothing else is kept beyond a tab.
(() => {
  try {
    const theme = localStorage.getItem("polyvec-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is off: the system's theme it is.
  }
})();
