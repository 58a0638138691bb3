/* Regions and lines: their pixels, what they come to with its error bar, the profile, and the table of all that was measured. */
const shapes = [];
let drawing = null;

const corners = {
  rectangle: ([a, b]) => [[a[0], a[1]], [b[0], a[1]], [b[0], b[1]], [a[0], b[1]]],
  ellipse: ([a, b]) => Array.from({ length: 72 }, (_, k) => {
    const [cx, cy] = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    const t = 2 * Math.PI * k / 72;
    return [cx + Math.abs(b[0] - a[0]) / 2 * Math.cos(t), cy + Math.abs(b[1] - a[1]) / 2 * Math.sin(t)];
  }),
  polygon: (points) => points,
  line: (points) => points,
};

function inside(points, x, y) {
  let odd = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
    const [[xi, yi], [xj, yj]] = [points[i], points[j]];
    if ((yi > y) !== (yj > y) && x < (xj - xi) * (y - yi) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

/* Pixel and weight: the share of a pixel that a region covers, by 5 x 5 points in it; the weights sum to 1. */
function weightsOf(kind, points) {
  const outline = corners[kind](points);
  const [xs, ys] = [outline.map((p) => p[0]), outline.map((p) => p[1])];
  const found = [];
  let total = 0;
  for (let y = Math.max(0, Math.floor(Math.min(...ys))); y < Math.min(height, Math.ceil(Math.max(...ys))); y += 1) {
    for (let x = Math.max(0, Math.floor(Math.min(...xs))); x < Math.min(width, Math.ceil(Math.max(...xs))); x += 1) {
      let hits = 0;
      for (let k = 0; k < 25; k += 1) if (inside(outline, x + (k % 5 + 0.5) / 5, y + (Math.floor(k / 5) + 0.5) / 5)) hits += 1;
      if (hits) found.push([y * width + x, hits / 25]);
      total += hits / 25;
    }
  }
  return { area: total * pitch * pitch, pixels: total, weights: found.map(([i, share]) => [i, share / total]) };
}

function bilinear(x, y) {
  const [px, py] = [Math.min(width - 1, Math.max(0, x - 0.5)), Math.min(height - 1, Math.max(0, y - 0.5))];
  const [x0, y0] = [Math.min(width - 2, Math.floor(px)), Math.min(height - 2, Math.floor(py))];
  const [fx, fy] = [px - x0, py - y0];
  const first = y0 * width + x0;
  return [[first, (1 - fx) * (1 - fy)], [first + 1, fx * (1 - fy)], [first + width, (1 - fx) * fy], [first + width + 1, fx * fy]];
}

/* One weight a pixel: at the image's rim a point has a pixel twice. */
const merged = (weights) => [...weights.reduce((all, [i, weight]) => all.set(i, (all.get(i) || 0) + weight), new Map())];

const sum = (weights, layer) => weights.reduce((total, [i, weight]) => total + weight * layer[i], 0);

/* What an image does to edges, as ctuq.quantities.discrepancy has it: the slope of each pixel, and its neighbours' mean less itself. */
const meanAt = (x, y) => mean[Math.min(height - 1, Math.max(0, y)) * width + Math.min(width - 1, Math.max(0, x))];
const change = (low, high, last, value) => (value(Math.min(last, high)) - value(Math.max(0, low))) / Math.max(1, Math.min(last, high) - Math.max(0, low));
const edges = { slope: new Float32Array(size), leak: new Float32Array(size) };
for (let y = 0; y < height; y += 1) {
  for (let x = 0; x < width; x += 1) {
    const i = y * width + x;
    edges.slope[i] = Math.hypot(change(x - 1, x + 1, width - 1, (k) => meanAt(k, y)), change(y - 1, y + 1, height - 1, (k) => meanAt(x, k)));
    for (let k = 0; k < 9; k += 1) edges.leak[i] += meanAt(x + k % 3 - 1, y + Math.floor(k / 3) - 1) / 9;
    edges.leak[i] -= mean[i];
  }
}
const between = (weights) => weights.reduce((total, [i, weight]) => total + (page.edges.place * weight * edges.slope[i]) ** 2, 0);
const leaking = (weights) => (page.edges.leak * sum(weights, edges.leak)) ** 2;

function profileOf([a, b]) {
  const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
  const count = Math.max(2, Math.min(512, Math.ceil(2 * length)));
  return Array.from({ length: count }, (_, k) => {
    const t = k / (count - 1);
    const weights = bilinear(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]));
    const variance = std ? (covariance ? covariance(weights) + between(merged(weights)) : sum(weights, std) ** 2) : 0;
    return { at: t * length * pitch, mean: sum(weights, mean), std: Math.sqrt(variance), truth: truth ? sum(weights, truth) : null };
  });
}

function measured(shape) {
  const { kind, points } = shape;
  if (kind === "line") {
    const length = Math.hypot(points[1][0] - points[0][0], points[1][1] - points[0][1]) * pitch;
    const [from, to] = points.map(([x, y]) => toMillimetres(x, y).map(place).join(", "));
    return { what: "line", place: `from (${from}) to (${to}) mm`, size: `${digits(length)} mm`, value: "", interval: "", numbers: [] };
  }
  const { area, pixels, weights } = weightsOf(kind, points);
  const value = sum(weights, mean);
  const spread = covariance ? Math.sqrt(covariance(weights) + between(weights) + leaking(weights)) : null;
  const number = writerFor(spread || largest / 1000);
  const xs = corners[kind](points);
  const [cx, cy] = toMillimetres(xs.reduce((s, p) => s + p[0], 0) / xs.length, xs.reduce((s, p) => s + p[1], 0) / xs.length);
  return {
    what: kind,
    place: `around (${place(cx)}, ${place(cy)}) mm`,
    size: `${digits(area)} mm², ${digits(pixels)} pixels`,
    value: spread === null ? number(value) : `${number(value)} ± ${number(spread)}`,
    interval: spread === null ? "not kept in the result" : `${number(value - 1.96 * spread)} to ${number(value + 1.96 * spread)}`,
    truth: truth ? number(sum(weights, truth)) : null,
    numbers: [value, spread],
  };
}

function outlined(pen, shape, active) {
  const outline = corners[shape.kind](shape.points).map(([x, y]) => toCanvas(x, y));
  if (outline.length < 2) return;
  for (const [style, wider] of [["#000", 2], [active ? "#ffb000" : "#00c8ff", 0]]) {
    pen.strokeStyle = style;
    pen.lineWidth = canvas.width / 260 + wider;
    pen.beginPath();
    outline.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    if (shape.kind !== "line" && !(shape.kind === "polygon" && shape === drawing)) pen.closePath();
    pen.stroke();
  }
}

overlays.push((pen) => {
  for (const shape of shapes) outlined(pen, shape, false);
  if (drawing) outlined(pen, drawing, true);
});

function tell(shape) {
  const found = measured(shape);
  const value = found.value ? `: mean ${found.value} 1/mm, 95 % ${found.interval}` : "";
  const known = found.truth ? `; truth ${found.truth}` : "";
  byId("measured").textContent = `${found.what} ${found.place}, ${found.size}${value}${known}`;
  if (shape.kind === "line") drawProfile(profileOf(shape.points));
}

function keep(shape) {
  const [[x0, y0]] = shape.points;
  if (shape.points.every(([x, y]) => Math.hypot(x - x0, y - y0) < 0.5)) return;
  shapes.push(shape);
  tell(shape);
  listed();
}

function listed() {
  const body = byId("measurements");
  body.replaceChildren(...shapes.map((shape, i) => {
    const found = measured(shape);
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = `${i + 1} ${found.what}`;
    row.append(head);
    for (const text of [found.place, found.size, found.value, found.interval]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    const cell = document.createElement("td");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Remove";
    button.setAttribute("aria-label", `Remove ${found.what} ${i + 1}`);
    button.addEventListener("click", () => { shapes.splice(shapes.indexOf(shape), 1); listed(); draw(); });
    cell.append(button);
    row.append(cell);
    return row;
  }));
  byId("measured-table").hidden = shapes.length === 0;
}

function drawProfile(points) {
  const plot = byId("profile");
  plot.hidden = false;
  const pen = plot.getContext("2d");
  const ink = getComputedStyle(document.body);
  const [w, h, x0, y0] = [plot.width, plot.height, 62, 28];
  const lows = points.map((p) => Math.min(p.mean - 1.96 * p.std, p.truth === null ? Infinity : p.truth));
  const highs = points.map((p) => Math.max(p.mean + 1.96 * p.std, p.truth === null ? -Infinity : p.truth));
  const [low, high] = [Math.min(...lows), Math.max(...highs)];
  const end = points[points.length - 1].at || 1;
  const px = (at) => x0 + at / end * (w - x0 - 8);
  const py = (value) => 8 + (high - value) / Math.max(high - low, 1e-30) * (h - y0 - 8);
  const path = (of, style, width_) => {
    pen.strokeStyle = style;
    pen.lineWidth = width_;
    pen.beginPath();
    points.forEach((p, i) => (i ? pen.lineTo(px(p.at), py(of(p))) : pen.moveTo(px(p.at), py(of(p)))));
    pen.stroke();
  };
  pen.clearRect(0, 0, w, h);
  pen.fillStyle = "rgba(0, 150, 220, 0.28)";
  pen.beginPath();
  points.forEach((p, i) => (i ? pen.lineTo(px(p.at), py(p.mean + 1.96 * p.std)) : pen.moveTo(px(p.at), py(p.mean + 1.96 * p.std))));
  [...points].reverse().forEach((p) => pen.lineTo(px(p.at), py(p.mean - 1.96 * p.std)));
  pen.fill();
  path((p) => p.mean, ink.getPropertyValue("--accent"), 2);
  if (truth) path((p) => p.truth, ink.getPropertyValue("--warn-line"), 1.5);
  pen.fillStyle = ink.getPropertyValue("--ink");
  pen.font = "13px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.fillText(digits(high), x0 - 6, 18);
  pen.fillText(digits(low), x0 - 6, h - y0);
  pen.fillText(`${digits(end)} mm`, w - 8, h - 8);
  pen.textAlign = "left";
  pen.fillText("0", x0, h - 8);
  byId("profile-text").textContent = `Profile: 1/mm over ${digits(end)} mm${std ? ", with its 95 % band" : ""}${truth ? "; the truth in yellow" : ""}.`;
}
