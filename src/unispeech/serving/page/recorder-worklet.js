// Hands what the microphone hears to the page, some hundredths of a second at a time.

const SIZE = 2048;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.held = new Float32Array(SIZE);
    this.count = 0;
    this.port.onmessage = () => {
      this.port.postMessage(this.held.slice(0, this.count));
      this.port.postMessage(null);
      this.isOver = true;
    };
  }

  process([input]) {
    const samples = input[0] ?? [];
    for (const sample of samples) {
      this.held[this.count++] = sample;
      if (this.count === SIZE) {
        this.port.postMessage(this.held.slice());
        this.count = 0;
      }
    }
    return !this.isOver;
  }
}

registerProcessor("recorder", Recorder);
