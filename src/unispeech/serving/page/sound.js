// A recording in the browser: samples to look at, and playing from any place.

const RATE = 16000; // what the model hears, and what is drawn
const PEAK = 64; // samples whose lowest and highest are kept together

export class Sound extends EventTarget {
  static async decode(blob) {
    const context = new OfflineAudioContext(1, 1, RATE);
    const buffer = await context.decodeAudioData(await blob.arrayBuffer());
    return new Sound(blob, buffer);
  }

  constructor(blob, buffer) {
    super();
    this.blob = blob;
    this.rate = RATE;
    this.duration = buffer.duration;
    this.samples = mix(buffer);
    this.peaks = peaks(this.samples);
    this.loudest = this.samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1e-6);
  }

  get isPlaying() {
    return this.source !== undefined;
  }

  get time() {
    if (!this.isPlaying) return undefined;
    return Math.min(this.from + Math.max(this.context.currentTime - this.began, 0), this.to);
  }

  async play(from = 0, to = this.duration) {
    this.stop();
    this.context ??= new AudioContext();
    await this.context.resume();
    // Decoded anew at the rate of the loudspeaker, which sounds better than what the model hears.
    this.full ??= await this.context.decodeAudioData(await this.blob.arrayBuffer());
    this.stop();
    const source = new AudioBufferSourceNode(this.context, { buffer: this.full });
    source.connect(this.context.destination);
    source.onended = () => source === this.source && this.stop();
    [this.source, this.from, this.to, this.began] = [source, from, to, this.context.currentTime];
    source.start(0, from, Math.max(to - from, 0.01));
    this.dispatchEvent(new Event("play"));
  }

  stop() {
    const source = this.source;
    this.source = undefined;
    source?.stop();
    this.dispatchEvent(new Event("stop"));
  }
}

function mix(buffer) {
  const mixed = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mixed.length; i++) mixed[i] += samples[i] / buffer.numberOfChannels;
  }
  return mixed;
}

function peaks(samples) {
  const count = Math.ceil(samples.length / PEAK);
  const [low, high] = [new Float32Array(count), new Float32Array(count)];
  for (let i = 0; i < samples.length; i++) {
    const place = Math.floor(i / PEAK);
    low[place] = Math.min(low[place], samples[i]);
    high[place] = Math.max(high[place], samples[i]);
  }
  return { low, high };
}

// Lowest and highest sample between two times.
export function range(sound, from, to) {
  const [first, last] = [Math.max(Math.floor(from * RATE), 0), Math.min(Math.ceil(to * RATE), sound.samples.length)];
  let [low, high] = [0, 0];
  if (last - first > 4 * PEAK) {
    for (let i = Math.floor(first / PEAK); i < Math.ceil(last / PEAK); i++) {
      low = Math.min(low, sound.peaks.low[i]);
      high = Math.max(high, sound.peaks.high[i]);
    }
  } else {
    for (let i = first; i < last; i++) {
      low = Math.min(low, sound.samples[i]);
      high = Math.max(high, sound.samples[i]);
    }
  }
  return [low, high];
}
