/* The image as it is shown: layer, window, palette, zoom, colour bar, scale bar, histogram. */
const canvas = byId("canvas");
const context = canvas.getContext("2d");
const zoomed = Math.max(1, Math.ceil(720 / Math.max(width, height)));
canvas.width = width * zoomed;
canvas.height = height * zoomed;
const picture = new OffscreenCanvas(width, height);
const view = { x: 0, y: 0, scale: 1 };
const state = { layer: "mean", sample: 0, cross: null, windows: {}, palettes: {}, hovered: null };
const overlays = [];
const SIGNED = ["error"];
const COLOURED = ["std", "std_rays", "relative", "snr", "probability"];

function values() {
  if (state.layer === "sample") return samples.subarray(state.sample * size, (state.sample + 1) * size);
  if (state.layer === "probability") return probabilityAbove(byId("threshold").valueAsNumber);
  return layers[state.layer];
}

function kindOf(layer) {
  if (SIGNED.includes(layer) || COLOURED.includes(layer)) return layer;
  return "attenuation";
}

function usualWindow(layer) {
  if (kindOf(layer) === "attenuation") return page.window;
  if (layer === "probability") return [0, 1];
  const sorted = Float32Array.from(layers[layer]).sort();
  const high = sorted[Math.floor(0.998 * (size - 1))] || 1e-12;
  if (!SIGNED.includes(layer)) return [0, high];
  const most = Math.max(high, -sorted[Math.ceil(0.002 * (size - 1))]);
  return [-most, most];
}

const windowOf = (layer) => state.windows[kindOf(layer)] || usualWindow(layer);

function paletteOf(layer) {
  const usual = SIGNED.includes(layer) ? "signed" : COLOURED.includes(layer) ? "inferno" : "grey";
  return state.palettes[kindOf(layer)] || usual;
}

function unitOf(layer) {
  if (layer === "relative" || layer === "snr") return "ratio";
  return layer === "probability" ? "probability" : "1/mm";
}

function draw() {
  const shown = values();
  const [low, high] = windowOf(state.layer);
  const palette = palettes[paletteOf(state.layer)];
  const image = new ImageData(width, height);
  for (let i = 0; i < size; i += 1) {
    const code = 3 * Math.round(255 * Math.min(1, Math.max(0, (shown[i] - low) / Math.max(high - low, 1e-12))));
    image.data.set([palette[code], palette[code + 1], palette[code + 2], 255], 4 * i);
  }
  picture.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, view.x, view.y, width / view.scale, height / view.scale, 0, 0, canvas.width, canvas.height);
  for (const overlay of overlays) overlay(context);
  drawScaleBar();
  drawCross();
  drawBar(palette, low, high);
  drawHistogram(shown, low, high);
  if (samples) byId("count").textContent = `sample ${state.sample + 1} of ${page.samples.count}`;
}

const toCanvas = (x, y) => [(x - view.x) * view.scale * zoomed, (y - view.y) * view.scale * zoomed];
const toMillimetres = (x, y) => [left + x * pitch, top - y * pitch];

function toPixels(event) {
  const box = canvas.getBoundingClientRect();
  const across = (event.clientX - box.left) / box.width;
  const down = (event.clientY - box.top) / box.height;
  return [view.x + across * width / view.scale, view.y + down * height / view.scale];
}

function drawScaleBar() {
  const most = 0.3 * (right - left) / view.scale;
  const unit = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((n) => n * unit).find((n) => n <= most) || unit;
  const pixels = length / pitch * view.scale * zoomed;
  const [x, y] = [0.04 * canvas.width, 0.95 * canvas.height];
  context.font = `${Math.round(canvas.width / 34)}px system-ui, sans-serif`;
  for (const [style, wider] of [["#000", 4], ["#fff", 0]]) {
    context.strokeStyle = style;
    context.lineWidth = canvas.width / 180 + wider;
    context.beginPath();
    context.moveTo(x - wider / 2, y);
    context.lineTo(x + pixels + wider / 2, y);
    context.stroke();
  }
  context.lineWidth = 4;
  context.strokeStyle = "#000";
  const text = `${Number(length.toPrecision(1))} mm`;
  context.strokeText(text, x, y - canvas.width / 60);
  context.fillStyle = "#fff";
  context.fillText(text, x, y - canvas.width / 60);
}

function drawCross() {
  if (!state.cross) return;
  const [x, y] = toCanvas(state.cross.x + 0.5, state.cross.y + 0.5);
  const arm = canvas.width / 50;
  context.strokeStyle = "#ff5000";
  context.lineWidth = canvas.width / 240;
  context.beginPath();
  context.moveTo(x - arm, y);
  context.lineTo(x + arm, y);
  context.moveTo(x, y - arm);
  context.lineTo(x, y + arm);
  context.stroke();
}

function drawBar(palette, low, high) {
  const bar = byId("bar").getContext("2d");
  const image = new ImageData(256, 1);
  for (let i = 0; i < 256; i += 1) image.data.set([palette[3 * i], palette[3 * i + 1], palette[3 * i + 2], 255], 4 * i);
  for (let y = 0; y < 14; y += 1) bar.putImageData(image, 0, y);
  byId("bar-low").textContent = digits(low);
  byId("bar-high").textContent = `${digits(high)} ${unitOf(state.layer)}`;
  for (const [id, value] of [["low", low], ["high", high]]) {
    if (document.activeElement !== byId(id)) byId(id).value = Number(value.toPrecision(4));
  }
}

function drawHistogram(shown, low, high) {
  const plot = byId("histogram");
  const pen = plot.getContext("2d");
  const margin = 0.25 * (high - low);
  const [from, to] = [low - margin, high + margin];
  const counts = new Float64Array(96);
  for (let i = 0; i < size; i += 1) {
    const bin = Math.floor((shown[i] - from) / Math.max(to - from, 1e-30) * counts.length);
    if (bin >= 0 && bin < counts.length) counts[bin] += 1;
  }
  const most = Math.log1p(Math.max(...counts, 1));
  const ink = getComputedStyle(document.body);
  pen.clearRect(0, 0, plot.width, plot.height);
  pen.fillStyle = ink.getPropertyValue("--soft");
  counts.forEach((count, bin) => {
    const tall = Math.log1p(count) / most * (plot.height - 4);
    pen.fillRect(bin * plot.width / counts.length, plot.height - tall, plot.width / counts.length - 1, tall);
  });
  pen.fillStyle = ink.getPropertyValue("--accent");
  for (const value of [low, high]) pen.fillRect((value - from) / Math.max(to - from, 1e-30) * plot.width - 1, 0, 2, plot.height);
}

function zoom(by, at = [view.x + width / view.scale / 2, view.y + height / view.scale / 2]) {
  const scale = Math.min(32, Math.max(1, view.scale * by));
  const share = [(at[0] - view.x) * view.scale / width, (at[1] - view.y) * view.scale / height];
  view.scale = scale;
  pan(at[0] - share[0] * width / scale, at[1] - share[1] * height / scale);
}

function pan(x, y) {
  view.x = Math.min(width - width / view.scale, Math.max(0, x));
  view.y = Math.min(height - height / view.scale, Math.max(0, y));
  draw();
}

function setWindow(low, high) {
  if (!Number.isFinite(low) || !Number.isFinite(high) || high <= low) return;
  state.windows[kindOf(state.layer)] = [low, high];
  draw();
}

function show(layer) {
  state.layer = layer;
  document.querySelector(`input[name=layer][value=${layer}]`).checked = true;
  byId("palette").value = paletteOf(layer);
  draw();
}

function readOut(x, y) {
  const i = y * width + x;
  const [mx, my] = toMillimetres(x + 0.5, y + 0.5);
  const number = writerFor(std && std[i]);
  let text = `x ${place(mx)} mm, y ${place(my)} mm: ${number(mean[i])}`;
  if (std) text += ` ± ${number(std[i])} 1/mm (95 %: ${number(layers.lower[i])} to ${number(layers.upper[i])})`;
  else text += " 1/mm";
  if (truth) text += `; truth ${number(truth[i])}`;
  byId("readout").textContent = text;
}
