// Waveform, spectrogram, words and phones on one time axis, to look at and to correct.

import { range } from "./sound.js";
import { Spectrogram } from "./spectrogram.js";

const MOST_PIXELS_PER_SECOND = 2000;
const find = (id) => document.getElementById(id);

export class Timeline extends EventTarget {
  constructor() {
    super();
    this.scroller = find("scroller");
    this.track = find("track");
    this.phones = find("phones");
    this.cursor = find("cursor");
    this.selected = -1;
    this.scroller.addEventListener("scroll", () => this.refresh());
    new ResizeObserver(() => this.resize()).observe(this.scroller);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.refresh());
    for (const id of ["waveform", "spectrogram"]) {
      find(id).addEventListener("click", (event) => this.tell("seek", this.timeOf(event)));
    }
    this.phones.addEventListener("click", (event) => {
      const index = event.target.closest("[role=option]")?.dataset.index;
      if (index !== undefined) this.select(Number(index), { isToldToPlay: true });
    });
    this.addHandle("start");
    this.addHandle("end");
  }

  show(sound) {
    this.sound = sound;
    this.spectrogram = new Spectrogram(sound);
    this.transcript = undefined;
    this.selected = -1;
    this.pixelsPerSecond = 0;
    this.resize();
  }

  showTranscript(transcript) {
    this.transcript = transcript;
    this.selected = -1;
    transcript.addEventListener("change", () => this.select(Math.min(this.selected, transcript.phones.length - 1)));
    this.refresh();
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  timeOf(event) {
    const time = (event.clientX - this.track.getBoundingClientRect().left) / this.pixelsPerSecond;
    return Math.min(Math.max(time, 0), this.sound.duration);
  }

  // Where nothing else was chosen, a few seconds fill the width; all of it is never smaller than the width.
  resize() {
    if (!this.sound || !this.scroller.clientWidth) return;
    const whole = this.scroller.clientWidth / this.sound.duration;
    this.pixelsPerSecond = Math.max(this.pixelsPerSecond || Math.max(whole, 160), whole);
    this.track.style.width = `${Math.floor(this.sound.duration * this.pixelsPerSecond)}px`;
    this.refresh();
  }

  // Zooms around the selected phone, or around the middle.
  zoom(factor) {
    const width = this.scroller.clientWidth;
    const phone = this.transcript?.phones[this.selected];
    const middle = phone ? (phone.start + phone.end) / 2 : (this.scroller.scrollLeft + width / 2) / this.pixelsPerSecond;
    this.pixelsPerSecond = Math.min(this.pixelsPerSecond * factor, MOST_PIXELS_PER_SECOND);
    this.resize();
    this.scroller.scrollLeft = middle * this.pixelsPerSecond - width / 2;
    this.refresh();
  }

  select(index, { isToldToPlay = false } = {}) {
    this.selected = index;
    const phone = this.transcript?.phones[index];
    if (phone) this.reveal(phone.start, phone.end);
    this.refresh();
    this.tell("select", { index, isToldToPlay });
  }

  reveal(start, end) {
    const [left, right] = [start * this.pixelsPerSecond, end * this.pixelsPerSecond];
    const { scrollLeft, clientWidth } = this.scroller;
    if (left < scrollLeft || right > scrollLeft + clientWidth) {
      this.scroller.scrollLeft = (left + right - clientWidth) / 2;
    }
  }

  // Shows where the sound is; undefined hides it.
  follow(time) {
    this.cursor.hidden = time === undefined;
    if (time === undefined) return;
    this.cursor.style.left = `${time * this.pixelsPerSecond}px`;
    const { scrollLeft, clientWidth } = this.scroller;
    const place = time * this.pixelsPerSecond - scrollLeft;
    if (place < 0 || place > clientWidth) this.scroller.scrollLeft += place - clientWidth * 0.1;
  }

  refresh() {
    if (this.isAsked || !this.sound) return;
    this.isAsked = true;
    requestAnimationFrame(() => {
      this.isAsked = false;
      this.draw();
    });
  }

  draw() {
    const width = this.scroller.clientWidth;
    const from = this.scroller.scrollLeft / this.pixelsPerSecond;
    const to = from + width / this.pixelsPerSecond;
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    for (const id of ["waveform", "spectrogram", "axis"]) fit(find(id), width);
    this.drawWaveform(from, to, color("--wave"));
    this.spectrogram.draw(find("spectrogram"), from, to, parts(color("--paper")), parts(color("--ink")));
    drawFrequencies(color("--faint"));
    this.drawAxis(from, to, color("--faint"));
    if (this.transcript) this.drawTiers(from, to);
  }

  drawWaveform(from, to, color) {
    const canvas = find("waveform");
    const context = canvas.getContext("2d");
    const [middle, scale] = [canvas.height / 2, (canvas.height / 2 - 2) / this.sound.loudest];
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = color;
    const step = (to - from) / canvas.width;
    for (let x = 0; x < canvas.width; x++) {
      if (from + x * step > this.sound.duration) break;
      const [low, high] = range(this.sound, from + x * step, from + (x + 1) * step);
      context.fillRect(x, middle - high * scale, 1, Math.max((high - low) * scale, 1));
    }
  }

  drawAxis(from, to, color) {
    const canvas = find("axis");
    const context = canvas.getContext("2d");
    const ratio = canvas.width / this.scroller.clientWidth;
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600].find(
      (size) => size * this.pixelsPerSecond > 64,
    );
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = color;
    context.font = `${12 * ratio}px sans-serif`;
    context.textBaseline = "middle";
    for (let mark = Math.ceil(from / step); mark * step <= Math.min(to, this.sound.duration); mark++) {
      const x = (mark * step - from) * this.pixelsPerSecond * ratio;
      context.fillRect(x, 0, 1, 5 * ratio);
      context.fillText(label(mark * step, step), x + 3 * ratio, canvas.height / 2 + 2 * ratio);
    }
  }

  // Only what can be seen is laid out, so that hours of phones cost nothing.
  drawTiers(from, to) {
    const { phones, words } = this.transcript;
    const seen = phones.map((phone, index) => ({ ...phone, index })).filter((phone) => phone.end >= from && phone.start <= to);
    this.phones.replaceChildren(...seen.map((phone) => this.option(phone, phones.length)));
    const active = find(`phone-${this.selected}`);
    if (active) this.phones.setAttribute("aria-activedescendant", active.id);
    else this.phones.removeAttribute("aria-activedescendant");
    find("words").hidden = words === undefined;
    const near = (words ?? []).filter((word) => word.end >= from && word.start <= to);
    find("words").replaceChildren(...near.map((word) => this.span(word, word.word)));
    const phone = phones[this.selected];
    this.placeHandle("start", phone, phones[this.selected - 1]?.start ?? 0, phone?.end);
    this.placeHandle("end", phone, phone?.start, phones[this.selected + 1]?.end ?? this.sound.duration);
  }

  span(found, text) {
    const element = document.createElement("div");
    element.className = "span";
    element.textContent = text;
    element.style.left = `${found.start * this.pixelsPerSecond}px`;
    element.style.width = `${Math.max((found.end - found.start) * this.pixelsPerSecond, 2)}px`;
    return element;
  }

  option(phone, count) {
    const element = this.span(phone, phone.phone);
    element.id = `phone-${phone.index}`;
    element.dataset.index = phone.index;
    element.role = "option";
    element.ariaSelected = String(phone.index === this.selected);
    element.ariaSetSize = count;
    element.ariaPosInSet = phone.index + 1;
    element.ariaLabel = describe(phone);
    const score = document.createElement("span");
    score.className = "score";
    score.style.width = `${phone.score * 100}%`;
    element.append(score);
    return element;
  }

  addHandle(side) {
    const handle = find(`handle-${side}`);
    const move = (time) => {
      const { transcript, selected } = this;
      if (side === "start") transcript.moveStart(selected, time);
      else transcript.moveEnd(selected, time);
    };
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      this.transcript.hold();
    });
    handle.addEventListener("pointermove", (event) => this.transcript.isHeld && move(this.timeOf(event)));
    handle.addEventListener("lostpointercapture", () => this.transcript.isHeld && this.transcript.release());
    handle.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!direction) return;
      event.preventDefault();
      const phone = this.transcript.phones[this.selected];
      move(phone[side] + direction * (event.shiftKey ? 0.02 : 0.005));
    });
  }

  placeHandle(side, phone, lowest, highest) {
    const handle = find(`handle-${side}`);
    handle.hidden = !phone;
    if (!phone) return;
    handle.style.left = `${phone[side] * this.pixelsPerSecond}px`;
    handle.ariaLabel = `${side === "start" ? "Start" : "End"} of ${phone.phone}`;
    handle.ariaValueMin = lowest.toFixed(3);
    handle.ariaValueMax = highest.toFixed(3);
    handle.ariaValueNow = phone[side].toFixed(3);
    handle.ariaValueText = `${phone[side].toFixed(3)} seconds`;
  }
}

function describe(phone) {
  const percent = Math.round(phone.score * 100);
  return `${phone.phone}, ${phone.start.toFixed(2)} to ${phone.end.toFixed(2)} seconds, score ${percent} percent`;
}

function drawFrequencies(color) {
  const canvas = find("spectrogram");
  const context = canvas.getContext("2d");
  const size = canvas.height / canvas.dataset.height;
  context.fillStyle = color;
  context.font = `${11 * size}px sans-serif`;
  for (const [text, place] of [["8 kHz", 0.09], ["4 kHz", 0.5]]) context.fillText(text, 3 * size, place * canvas.height);
}

function fit(canvas, width) {
  const ratio = Math.min(devicePixelRatio, 2);
  canvas.dataset.height ??= canvas.height;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${canvas.dataset.height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(canvas.dataset.height * ratio);
}

function label(time, step) {
  if (time < 60) return `${Number(time.toFixed(step < 0.1 ? 2 : 1))} s`;
  return `${Math.floor(time / 60)}:${(time % 60).toFixed(step < 1 ? 1 : 0).padStart(step < 1 ? 4 : 2, "0")}`;
}

function parts(color) {
  return [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
}
