// A moving chart on a canvas: the last half minute of one number, drawn at the screen's own rate between the points.

const SPAN = 30_000;

export class Chart {
  #points = []; // [time, value]
  #canvas;
  #floor; // the scale ends at least here
  #top;

  constructor(canvas, floor) {
    this.#canvas = canvas;
    this.#floor = this.#top = floor;
    const frame = () => {
      this.#draw();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  add(value) {
    const now = performance.now();
    this.#points.push([now, value]);
    while (this.#points.length > 2 && this.#points[1][0] < now - SPAN) this.#points.shift();
  }

  #draw() {
    const canvas = this.#canvas;
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext('2d');
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (this.#points.length < 2) return;

    const style = getComputedStyle(canvas);
    const highest = Math.max(this.#floor, ...this.#points.map(([, value]) => value * 1.15));
    this.#top += (highest - this.#top) * 0.08; // the scale glides
    const now = performance.now();
    const x = (time) => width - 4 - ((now - time) / SPAN) * width;
    const y = (value) => height - 2 - (value / this.#top) * (height - 8);

    pen.beginPath();
    for (const [time, value] of this.#points) pen.lineTo(x(time), y(value));
    const [, last] = this.#points.at(-1);
    pen.lineTo(width - 4, y(last));
    pen.strokeStyle = style.color;
    pen.lineWidth = 2;
    pen.lineJoin = 'round';
    pen.stroke();

    pen.lineTo(width - 4, height);
    pen.lineTo(x(this.#points[0][0]), height);
    const shade = pen.createLinearGradient(0, 0, 0, height);
    shade.addColorStop(0, style.color);
    shade.addColorStop(1, style.color.replace(/^rgb\((.*)\)$/, 'rgba($1, 0)'));
    pen.globalAlpha = 0.22;
    pen.fillStyle = shade;
    pen.fill();

    pen.globalAlpha = 1;
    pen.beginPath();
    pen.arc(width - 4, y(last), 3.5, 0, 7);
    pen.fillStyle = style.color;
    pen.fill();
  }
}
