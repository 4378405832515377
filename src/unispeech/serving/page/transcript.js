// What is known of a recording, and its corrections: every change can be taken back.

const SHORTEST = 0.005; // seconds that a phone lasts at least
const TOUCHING = 0.0005; // phones nearer than this share their boundary

export class Transcript extends EventTarget {
  // `answer` is a verbose_json answer with phones and, where the model writes them, words.
  constructor(answer, { name, kind }) {
    super();
    this.name = name;
    this.kind = kind;
    this.duration = answer.duration;
    this.hasWords = answer.words !== undefined;
    this.phones = (answer.phones ?? []).map((phone) => ({
      ...phone,
      word: this.hasWords ? wordAt(answer.words, (phone.start + phone.end) / 2) : 0,
    }));
    this.past = [];
    this.future = [];
  }

  get words() {
    if (!this.hasWords) return undefined;
    return groups(this.phones, (before, phone) => before.word !== phone.word).map((phones) => ({
      word: phones.map((phone) => phone.phone).join(""),
      start: phones[0].start,
      end: phones.at(-1).end,
      score: mean(phones.map((phone) => phone.score)),
    }));
  }

  get text() {
    if (this.kind === "characters" && this.hasWords) return this.words.map((word) => word.word).join(" ");
    return this.phones.map((phone) => phone.phone).join(this.kind === "phones" ? " " : "");
  }

  rename(index, symbol) {
    if (symbol && symbol !== this.phones[index].phone) this.replace(index, { phone: symbol, score: 1 });
  }

  // A boundary that two phones share moves for both.
  moveStart(index, time) {
    const [before, phone] = [this.phones[index - 1], this.phones[index]];
    const isShared = before && phone.start - before.end < TOUCHING;
    const lowest = isShared ? before.start + SHORTEST : (before?.end ?? 0);
    const start = clamp(time, lowest, phone.end - SHORTEST);
    const phones = [...this.phones];
    phones[index] = { ...phone, start };
    if (isShared) phones[index - 1] = { ...before, end: start };
    this.change(phones);
  }

  moveEnd(index, time) {
    const [phone, after] = [this.phones[index], this.phones[index + 1]];
    const isShared = after && after.start - phone.end < TOUCHING;
    const highest = isShared ? after.end - SHORTEST : (after?.start ?? this.duration);
    const end = clamp(time, phone.start + SHORTEST, highest);
    const phones = [...this.phones];
    phones[index] = { ...phone, end };
    if (isShared) phones[index + 1] = { ...after, start: end };
    this.change(phones);
  }

  split(index) {
    const phone = this.phones[index];
    const middle = round((phone.start + phone.end) / 2);
    if (phone.end - phone.start < 2 * SHORTEST) return;
    this.change(this.phones.toSpliced(index, 1, { ...phone, end: middle }, { ...phone, start: middle }));
  }

  remove(index) {
    this.change(this.phones.toSpliced(index, 1));
  }

  replace(index, fields) {
    this.change(this.phones.with(index, { ...this.phones[index], ...fields }));
  }

  change(phones) {
    if (!this.isHeld) {
      this.past.push(this.phones);
      this.future = [];
    }
    this.phones = phones;
    this.dispatchEvent(new Event("change"));
  }

  // All changes until `release` are taken back at once: a drag is one change.
  hold() {
    this.past.push(this.phones);
    this.future = [];
    this.isHeld = true;
  }

  release() {
    this.isHeld = false;
    if (this.past.at(-1) === this.phones) this.past.pop();
    this.dispatchEvent(new Event("change"));
  }

  undo() {
    this.turn(this.past, this.future);
  }

  redo() {
    this.turn(this.future, this.past);
  }

  turn(from, to) {
    if (!from.length || this.isHeld) return;
    to.push(this.phones);
    this.phones = from.pop();
    this.dispatchEvent(new Event("change"));
  }
}

// Parts a list where `isApart(before, after)` holds for two neighbours.
export function groups(list, isApart) {
  const found = [];
  for (const item of list) {
    const group = found.at(-1);
    if (group && !isApart(group.at(-1), item)) group.push(item);
    else found.push([item]);
  }
  return found;
}

export function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
}

export function round(value) {
  return Math.round(value * 1e4) / 1e4;
}

export function clamp(value, low, high) {
  return round(Math.min(Math.max(value, low), Math.max(low, high)));
}

function wordAt(words, time) {
  const index = words.findIndex((word) => time <= word.end);
  return index < 0 ? words.length : index;
}
