"""HTTP, WebSocket and a page: what `unispeech serve` runs."""
