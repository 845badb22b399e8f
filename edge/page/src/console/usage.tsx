// What calls have used, as a chart by day and a table of sums.

import { useMemo, useState } from "preact/hooks";
import { consoleTexts, texts } from "../texts";
import { Field } from "../ui/field";
import { Chart } from "./chart";
import { Table, Text, type Column } from "./table";
import type { UsageRow } from "./types";
import { MEASURES, seriesOf, valueOf, type Measure, type Sum } from "./usage_series";
import { useLoaded } from "./use_loaded";
import type { ViewProps } from "./view";

const GROUPS = ["model", "account", "key", "target"] as const;
const DAYS = [7, 30, 90, 365] as const;
const DAY_MS = 86_400_000;
const EVERY_MS = 5_000;

export function Usage({ call, onFailure }: ViewProps) {
  const { usage: words } = consoleTexts;
  const [measure, setMeasure] = useState<Measure>("tokens");
  const [group, setGroup] = useState<(typeof GROUPS)[number]>("model");
  const [days, setDays] = useState(30);
  const read = async () => {
    const since = new Date(Date.now() - (days - 1) * DAY_MS).toISOString().slice(0, 10);
    const { rows = [] } = await call<{ rows?: UsageRow[] }>("Usage/QueryUsage", { since, by: ["day", group] });
    return { rows, group, since };
  };
  const { value } = useLoaded(read, [call, group, days], onFailure, EVERY_MS);
  const shown = useMemo(
    () => value && seriesOf(value.rows, value.group, value.since, new Date().toISOString().slice(0, 10), measure),
    [value, measure],
  );
  const columns: Column<Sum>[] = [
    { name: words.groups[group], show: ({ place, name }) => <><span class={`swatch series-${place}`} /> <Text>{name || words.unnamed}</Text></> },
    ...MEASURES.map((one) => ({ name: words.measures[one], isNumber: true, show: (sum: Sum) => words.value(one, valueOf(sum.row, one)) })),
  ];
  return (
    <>
      <div class="row bar">
        <Select label={words.measure} value={measure} options={MEASURES} names={words.measures} onChange={(one) => setMeasure(one)} />
        <Select label={words.by} value={group} options={GROUPS} names={words.groups} onChange={(one) => setGroup(one)} />
        <Field label={words.period}>
          {(id) => (
            <select id={id} value={days} onChange={(event) => setDays(Number(event.currentTarget.value))}>
              {DAYS.map((count) => (
                <option key={count} value={count}>
                  {words.days(count)}
                </option>
              ))}
            </select>
          )}
        </Field>
      </div>
      {shown ? (
        <>
          <Chart label={words.chart(words.measures[measure], words.groups[group])} series={shown} write={(amount) => words.value(measure, amount)} />
          <Table label={words.sums} columns={columns} rows={shown.sums} keyOf={({ name }) => name} empty={words.none} />
        </>
      ) : (
        <p class="loading">{texts.loading}</p>
      )}
    </>
  );
}

interface SelectProps<T extends string> {
  label: string;
  value: T;
  options: readonly T[];
  names: Record<T, string>;
  onChange(value: T): void;
}

function Select<T extends string>({ label, value, options, names, onChange }: SelectProps<T>) {
  return (
    <Field label={label}>
      {(id) => (
        <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
          {options.map((one) => (
            <option key={one} value={one}>
              {names[one]}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}
