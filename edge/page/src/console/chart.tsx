// A chart of days with stacked bars. The table below it has the same numbers for screen readers.

import { useEffect, useRef, useState } from "preact/hooks";
import type uPlot from "uplot";
import { consoleTexts } from "../texts";
import type { Series } from "./usage_series";

const HEIGHT = 280;

interface Props {
  label: string;
  series: Series;
  /** Formats a value. */
  write(value: number): string;
}

export function Chart({ label, series, write }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  const [day, setDay] = useState<number | null>(null);
  useEffect(() => {
    let chart: uPlot | null = null;
    let isGone = false;
    // Loaded with the first chart.
    void import("uplot").then(({ default: UPlot }) => {
      if (isGone || !place.current) return;
      chart = new UPlot(optionsOf(UPlot, series, write, place.current, setDay), [series.days, ...series.stacked.toReversed()], place.current);
      watcher.observe(place.current);
    });
    const watcher = new ResizeObserver(([entry]) => {
      if (entry) chart?.setSize({ width: Math.floor(entry.contentRect.width), height: HEIGHT });
    });
    return () => {
      isGone = true;
      watcher.disconnect();
      chart?.destroy();
    };
  }, [series, theme]);
  const total = day === null ? undefined : series.stacked.at(-1)?.[day];
  return (
    <figure class="chart">
      <div ref={place} role="img" aria-label={label} />
      <figcaption class="hint">
        {day !== null && total !== undefined ? consoleTexts.usage.ofDay(series.days[day] ?? 0, write(total)) : consoleTexts.usage.chartHint}
      </figcaption>
    </figure>
  );
}

function optionsOf(
  UPlot: typeof uPlot,
  { days, stacked }: Series,
  write: Props["write"],
  place: HTMLElement,
  onDay: (day: number | null) => void,
): uPlot.Options {
  const style = getComputedStyle(place);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const bars = UPlot.paths.bars!({ size: [0.8, 48], radius: 0.1 });
  const half = 43_200;
  return {
    width: place.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    tzDate: (seconds) => UPlot.tzDate(new Date(1000 * seconds), "Etc/UTC"),
    scales: {
      x: { range: [(days[0] ?? 0) - half, (days.at(-1) ?? 0) + half] },
      y: { range: (_self, _least, most) => [0, most > 0 ? 1.05 * most : 1] },
    },
    axes: [
      { ...axis, values: (_self, found) => found.map(consoleTexts.usage.axisDay) },
      { ...axis, size: 72, values: (_self, found) => found.map(write) },
    ],
    // The tallest bar first: the others are drawn over it.
    series: [
      {},
      ...stacked.toReversed().map((_, index) => ({
        fill: colour(`--series-${stacked.length - 1 - index}`),
        width: 0,
        paths: bars,
        points: { show: false },
      })),
    ],
    hooks: { setCursor: [(self) => onDay(self.cursor.idx ?? null)] },
  };
}

/** Returns a value that changes with the colours of the page. */
function useTheme(): string {
  const current = () => `${document.documentElement.dataset["theme"]} ${matchMedia("(prefers-color-scheme: dark)").matches}`;
  const [theme, setTheme] = useState(current);
  useEffect(() => {
    const change = () => setTheme(current());
    const watcher = new MutationObserver(change);
    watcher.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", change);
    return () => {
      watcher.disconnect();
      system.removeEventListener("change", change);
    };
  }, []);
  return theme;
}
