// Light or dark: the system's choice, or the reader's.

import { useLayoutEffect, useState } from "preact/hooks";
import { texts } from "./texts";
import { Icon } from "./ui/icon";

const NAME = "parley.theme";
const THEMES = ["system", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

function load(): Theme {
  return THEMES.find((theme) => theme === localStorage.getItem(NAME)) ?? "system";
}

export function ThemeButton() {
  const [theme, setTheme] = useState(load);
  useLayoutEffect(() => {
    document.documentElement.dataset["theme"] = theme;
    localStorage.setItem(NAME, theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
  return (
    <button
      type="button"
      class="quiet"
      aria-label={texts.theme.label(texts.theme.names[theme])}
      title={texts.theme.label(texts.theme.names[theme])}
      onClick={() => setTheme(next)}
    >
      <Icon name={theme} />
    </button>
  );
}
