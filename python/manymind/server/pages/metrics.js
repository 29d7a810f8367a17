// SPDX-License-Identifier: Apache-2.0
// Prometheus' text format, read as far as the dashboard needs it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const EDGE = /(?:^|,)le="([^"]*)"/;

// {values: Map name -> sum over labels, buckets: Map name -> [[edge, cumulative count], ...]}
export function parse(text) {
  const values = new Map();
  const buckets = new Map();
  for (const line of text.split("\n")) {
    const found = SAMPLE.exec(line);
    if (!found) continue;
    const [, name, labels, value] = found;
    const edge = EDGE.exec(labels ?? "");
    if (edge && name.endsWith("_bucket")) {
      const key = name.slice(0, -"_bucket".length);
      if (!buckets.has(key)) buckets.set(key, []);
      buckets.get(key).push([edge[1] === "+Inf" ? Infinity : Number(edge[1]), Number(value)]);
    } else {
      values.set(name, (values.get(name) ?? 0) + Number(value));
    }
  }
  return { values, buckets };
}

// The quantile of what was observed between two readings, by linear interpolation inside a bucket as Prometheus does;
// null if nothing was.
export function quantile(share, before, after) {
  const rows = after.map(([edge, count], index) => [edge, count - (before?.[index]?.[1] ?? 0)]);
  const total = rows.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const index = rows.findIndex(([, count]) => count >= share * total);
  const [low, below] = index ? rows[index - 1] : [0, 0];
  const [high, upTo] = rows[index];
  if (high === Infinity) return low;
  return low + ((high - low) * (share * total - below)) / (upTo - below);
}
