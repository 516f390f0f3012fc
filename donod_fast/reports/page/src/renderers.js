// Draws points: with WebGL (regl-scatterplot), or on a plain canvas where WebGL is missing.

import createScatterplot from "regl-scatterplot";
import { colour } from "./dom.js";

/** Whether the browser offers what regl-scatterplot needs. */
function hasWebGL() {
  const gl = document.createElement("canvas").getContext("webgl");
  const fits = Boolean(gl && gl.getExtension("OES_texture_float"));
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return fits;
}

const pointSize = (m) => (m > 100000 ? 2 : m > 20000 ? 3 : m > 3000 ? 4 : 5.5);

/** regl-scatterplot as a painter. Its own mouse and lasso stay off: the plane has keys and touch as well. */
class WebGLPoints {
  constructor(canvas, m) {
    this.canvas = canvas;
    this.plot = createScatterplot({
      canvas, width: canvas.clientWidth, height: canvas.clientHeight, cameraIsFixed: true, pointScaleMode: "constant",
      pointSize: pointSize(m), colorBy: "valueA", pointSizeSelected: 0, lassoInitiator: false, deselectOnEscape: false,
      backgroundColor: colour("--paper"), opacityByDensityFill: 0.35, opacityByDensityDebounceTime: 1, renderPointsAsSquares: m > 50000,
    });
    this.points = [];
    this.positions = null;
    this.wanted = null;
    this.drawing = null;
    this.looks = null;
    this.seen = null;
  }

  /** Draws what is wanted last; while a picture is being made, only the newest wish waits. */
  draw(wish) {
    this.wanted = wish;
    this.drawing ??= this.loop().finally(() => { this.drawing = null; });
    return this.drawing;
  }

  async loop() {
    while (this.wanted) {
      const { x, y, index, colours, passes, density, view, m } = this.wanted;
      this.wanted = null;
      const moved = this.positions !== x;
      if (moved || this.vertical !== y) {
        this.points = Array.from({ length: m }, (_, at) => [2 * x[at] - 1, 2 * y[at] - 1, 0, 0]);
        this.tree = undefined;
        this.positions = x;
        this.vertical = y;
      }
      for (let at = 0; at < m; at += 1) this.points[at][2] = index[at];
      const { clientWidth: width, clientHeight: height } = this.canvas;
      const looks = {
        width, height, aspectRatio: width / height, pointColor: colours, backgroundColor: colour("--paper"),
        opacityBy: density ? "density" : null, opacity: density ? 1 : 0.85,
      };
      // Each call draws all points once; without a graphics processor that takes a second for 200,000 of them.
      if (this.looks !== JSON.stringify(looks)) {
        this.looks = JSON.stringify(looks);
        await this.plot.set(looks);
        this.seen = null;
      }
      this.look(this.wanted?.view ?? view);
      if (m) await this.plot.draw(this.points, { zDataType: "categorical", spatialIndex: this.tree, filter: passes ?? undefined });
      this.tree ??= this.plot.get("spatialIndex");
    }
  }

  look(view) {
    const aspect = this.canvas.clientWidth / this.canvas.clientHeight;
    const { scaleX, scaleY, x, y } = view;
    const seen = JSON.stringify([scaleX, scaleY, x, y, aspect]);
    if (this.seen === seen) return;
    this.seen = seen;
    // The camera moves in units of half the height; x and y are the middle of the view in -1..1.
    this.plot.view([scaleX, 0, 0, 0, 0, scaleY, 0, 0, 0, 0, 1, 0, -x * scaleX * aspect, -y * scaleY, 0, 1], { preventEvent: true });
  }
}

/** The same without WebGL. */
class CanvasPoints {
  constructor(canvas, m) {
    this.canvas = canvas;
    this.size = pointSize(m);
    this.last = null;
  }

  draw(wish) {
    this.last = wish;
    this.look(wish.view);
    return Promise.resolve();
  }

  look(view) {
    if (!this.last) return;
    const { canvas, size } = this;
    const { x, y, index, colours, failures, density, m } = this.last;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
    [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    pen.globalAlpha = density ? Math.max(0.05, Math.min(0.8, 3000 / m)) : 0.85;
    const side = size * ratio * 0.8;
    colours.forEach((fill, category) => {
      pen.fillStyle = fill;
      for (let at = 0; at < m; at += 1) {
        if (index[at] !== category || failures[at]) continue;
        const left = ((2 * x[at] - 1 - view.x) * view.scaleX + 1) * width * 0.5;
        const top = (1 - (2 * y[at] - 1 - view.y) * view.scaleY) * height * 0.5;
        pen.fillRect(left - side / 2, top - side / 2, side, side);
      }
    });
  }
}

/** A painter for a canvas, and whether it uses WebGL. */
export function rendererFor(canvas, m) {
  if (hasWebGL()) {
    try {
      return { painter: new WebGLPoints(canvas, m), webgl: true };
    } catch {
      // A driver can fail later than the test above; a canvas with a WebGL context has no other, so take a new one.
      const fresh = canvas.cloneNode();
      canvas.replaceWith(fresh);
      return { painter: new CanvasPoints(fresh, m), webgl: false };
    }
  }
  return { painter: new CanvasPoints(canvas, m), webgl: false };
}
