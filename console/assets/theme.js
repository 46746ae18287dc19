// Before anything is drawn: the colours that this browser was told to use, if it was.
(() => {
  try {
    const theme = localStorage.getItem('clerk-sync-theme')
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme
  } catch {
    // A browser that keeps nothing follows its system.
  }
})()
