// A corrected transcript -> the files that the page gives; the same forms as `unispeech transcribe -f`.

import { groups, mean, round } from "./transcript.js";

const MAX_PAUSE = 0.3; // seconds of silence that a segment or a cue may have
const MAX_SECONDS = 6; // of a cue
const MAX_CHARACTERS = 84; // of a cue

export function toJson(transcript) {
  const row = (found) => ({ ...found, start: round(found.start), end: round(found.end), score: round(found.score) });
  const phones = transcript.phones.map(({ phone, start, end, score }) => row({ phone, start, end, score }));
  const content = { version: 1, audio: transcript.name, duration: round(transcript.duration), text: transcript.text };
  content.phones = phones;
  if (transcript.hasWords) content.words = transcript.words.map(row);
  content.segments = segments(transcript).map(row);
  const fields = Object.entries(content).map(([name, value]) => {
    const rows = Array.isArray(value) && value.length;
    const text = rows ? `[\n    ${value.map((item) => JSON.stringify(item)).join(",\n    ")}\n  ]` : JSON.stringify(value);
    return `  ${JSON.stringify(name)}: ${text}`;
  });
  return `{\n${fields.join(",\n")}\n}\n`;
}

export function toTextGrid(transcript) {
  const tiers = [];
  if (transcript.hasWords) tiers.push(["words", transcript.words.map((word) => ({ ...word, label: word.word }))]);
  tiers.push(["phones", transcript.phones.map((phone) => ({ ...phone, label: phone.phone }))]);
  const end = Math.max(round(transcript.duration), 1e-4);
  const lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", `xmax = ${end} `];
  lines.push("tiers? <exists> ", `size = ${tiers.length} `, "item []: ");
  tiers.forEach(([name, spans], index) => {
    const intervals = filled(spans, end);
    lines.push(`    item [${index + 1}]:`, '        class = "IntervalTier" ', `        name = "${name}" `);
    lines.push("        xmin = 0 ", `        xmax = ${end} `, `        intervals: size = ${intervals.length} `);
    intervals.forEach((interval, number) => {
      lines.push(`        intervals [${number + 1}]:`);
      lines.push(`            xmin = ${interval.start} `, `            xmax = ${interval.end} `);
      lines.push(`            text = "${interval.label.replaceAll('"', '""')}" `);
    });
  });
  return `${lines.join("\n")}\n`;
}

export function toSrt(transcript) {
  const cues = [];
  const gap = transcript.hasWords || transcript.kind === "phones" ? " " : "";
  for (const { start, end, label } of units(transcript)) {
    const cue = cues.at(-1);
    const longer = cue ? `${cue.label}${gap}${label}` : "";
    const isNear = cue && round(start - cue.end) <= MAX_PAUSE && round(end - cue.start) <= MAX_SECONDS;
    if (isNear && [...longer].length <= MAX_CHARACTERS) Object.assign(cue, { label: longer, end });
    else cues.push({ start, end, label });
  }
  const text = cues.map((cue, index) => `${index + 1}\n${clock(cue.start)} --> ${clock(cue.end)}\n${cue.label}`);
  return `${text.join("\n\n")}\n`;
}

function units(transcript) {
  const found = transcript.hasWords ? transcript.words : transcript.phones;
  return found.map((unit) => ({ ...unit, label: unit.word !== undefined && transcript.hasWords ? unit.word : unit.phone }));
}

function segments(transcript) {
  const gap = transcript.hasWords || transcript.kind === "phones" ? " " : "";
  const isSpelled = transcript.hasWords && transcript.kind === "characters";
  return groups(units(transcript), (before, unit) => round(unit.start - before.end) > MAX_PAUSE).map((group) => {
    const [start, end] = [group[0].start, group.at(-1).end];
    const phones = transcript.phones.filter((phone) => phone.start >= start && phone.end <= end);
    const text = isSpelled ? group.map((unit) => unit.label).join(" ") : phones.map((phone) => phone.phone).join(gap);
    return { start, end, text, score: mean(phones.map((phone) => phone.score)) };
  });
}

// Intervals without a gap: what lies between is empty.
function filled(spans, end) {
  const intervals = [];
  let last = 0;
  for (const span of spans) {
    const [start, stop] = [Math.max(round(span.start), last), Math.min(round(span.end), end)];
    if (stop <= start) continue;
    if (start > last) intervals.push({ start: last, end: start, label: "" });
    intervals.push({ start, end: stop, label: span.label });
    last = stop;
  }
  if (last < end) intervals.push({ start: last, end, label: "" });
  return intervals;
}

function clock(seconds) {
  const milliseconds = nearest(seconds * 1000);
  const part = (unit, size) => String(Math.floor(milliseconds / unit) % size).padStart(2, "0");
  const hours = String(Math.floor(milliseconds / 3600000)).padStart(2, "0");
  return `${hours}:${part(60000, 60)}:${part(1000, 60)},${String(milliseconds % 1000).padStart(3, "0")}`;
}

// As Python rounds: halves to the even side.
function nearest(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}
