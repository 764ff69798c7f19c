// The chosen theme, before anything is drawn: "light", "dark", or none, as the system has it. The page
// that a widget is in may choose: `?theme=dark`.
{
  const name = "turnwise.theme";
  let chosen = null;
  try { chosen = localStorage.getItem(name); } catch { /* a private window */ }
  const given = new URLSearchParams(location.search).get("theme");
  if (given === "light" || given === "dark") chosen = given;
  const show = () => { document.documentElement.dataset.theme = chosen ?? ""; };
  globalThis.nextTheme = () => {
    chosen = { light: "dark", dark: null }[chosen ?? ""] ?? (chosen ? null : "light");
    try {
      if (chosen) localStorage.setItem(name, chosen);
      else localStorage.removeItem(name);
    } catch { /* it holds as long as the page */ }
    show();
  };
  show();
}
