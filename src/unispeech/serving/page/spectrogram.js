// A wide-band spectrogram: the energy of short stretches of sound, by frequency.

const SIZE = 256; // samples of a stretch: 16 ms
const ROWS = SIZE / 2; // frequencies, from 0 to half of the sample rate
const RANGE = 55; // dB from black to white
const WINDOW = Float32Array.from({ length: SIZE }, (_, i) => Math.exp(-18 * ((i + 0.5) / SIZE - 0.5) ** 2));
const COS = Float32Array.from({ length: ROWS }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
const SIN = Float32Array.from({ length: ROWS }, (_, i) => Math.sin((2 * Math.PI * i) / SIZE));
const ORDER = Uint16Array.from({ length: SIZE }, (_, i) => reversed(i));

export class Spectrogram {
  constructor(sound) {
    this.sound = sound;
    const places = Array.from({ length: 400 }, (_, i) => ((i + 0.5) / 400) * sound.duration);
    this.top = Math.max(...places.map((time) => Math.max(...this.column(time))), -80);
  }

  // Energy in dB of each frequency around a time, the lowest frequency first.
  column(time) {
    const { samples, rate } = this.sound;
    const [re, im] = [new Float32Array(SIZE), new Float32Array(SIZE)];
    const first = Math.round(time * rate) - SIZE / 2;
    for (let i = 0; i < SIZE; i++) {
      const place = first + i;
      // The change from sample to sample lifts the high frequencies, as the ear does.
      const change = place > 0 && place < samples.length ? samples[place] - 0.97 * samples[place - 1] : 0;
      re[ORDER[i]] = change * WINDOW[i];
    }
    transform(re, im);
    return Float32Array.from({ length: ROWS }, (_, i) => 10 * Math.log10(re[i] ** 2 + im[i] ** 2 + 1e-12));
  }

  // Draws a stretch of time; `paper` and `ink` are [red, green, blue] of silence and of the loudest.
  draw(canvas, from, to, paper, ink) {
    const columns = Math.min(canvas.width, 1200);
    const image = new ImageData(columns, ROWS);
    for (let x = 0; x < columns; x++) {
      const time = from + ((x + 0.5) / columns) * (to - from);
      const column = time <= this.sound.duration ? this.column(time) : undefined;
      for (let row = 0; row < ROWS; row++) {
        const level = column ? (column[row] - this.top) / RANGE + 1 : 0;
        const share = Math.min(Math.max(level, 0), 1);
        const place = ((ROWS - 1 - row) * columns + x) * 4;
        for (let part = 0; part < 3; part++) image.data[place + part] = paper[part] + share * (ink[part] - paper[part]);
        image.data[place + 3] = 255;
      }
    }
    this.held ??= new OffscreenCanvas(1, ROWS);
    this.held.width = columns;
    this.held.getContext("2d").putImageData(image, 0, 0);
    canvas.getContext("2d").drawImage(this.held, 0, 0, canvas.width, canvas.height);
  }
}

function reversed(index) {
  let found = 0;
  for (let bit = 1; bit < SIZE; bit <<= 1) found = (found << 1) | (index & bit ? 1 : 0);
  return found;
}

// The fast Fourier transform in place, of values that are in bit-reversed order.
function transform(re, im) {
  for (let half = 1; half < SIZE; half *= 2) {
    const step = ROWS / half;
    for (let start = 0; start < SIZE; start += 2 * half) {
      for (let i = 0; i < half; i++) {
        const [a, b] = [start + i, start + i + half];
        const [cos, sin] = [COS[i * step], SIN[i * step]];
        const [x, y] = [re[b] * cos + im[b] * sin, im[b] * cos - re[b] * sin];
        [re[b], im[b]] = [re[a] - x, im[a] - y];
        re[a] += x;
        im[a] += y;
      }
    }
  }
}
