"""What moves on a page without a click: vitals, and the websocket that carries them."""
