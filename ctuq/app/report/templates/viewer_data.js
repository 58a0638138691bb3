/* What the page holds, unpacked: layers by name, samples, palettes, and the covariance of sums over regions. */
const page = JSON.parse(document.getElementById("viewer-data").textContent);
const byId = (id) => document.getElementById(id);
const [height, width] = page.shape;
const [left, right, bottom, top] = page.extent;
const size = width * height;
const pitch = (right - left) / width;

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const unpacked = (packed, codes) => Float32Array.from(codes, (code) => packed.low + packed.step * code);
const wide = (packed) => unpacked(packed, new Uint16Array(bytes(packed.data).buffer));

const layers = {};
for (const [name, packed] of Object.entries(page.layers)) layers[name] = wide(packed);
const { mean, std, truth } = layers;
const largest = mean.reduce((a, b) => Math.max(a, b), 0);
if (std) {
  layers.lower = mean.map((value, i) => value - 1.96 * std[i]);
  layers.upper = mean.map((value, i) => value + 1.96 * std[i]);
  /* Air has no relative deviation worth showing: below a twentieth of the largest value it is taken of that. */
  layers.relative = mean.map((value, i) => std[i] / Math.max(value, largest / 20, 1e-30));
  layers.snr = mean.map((value, i) => Math.max(value, 0) / Math.max(std[i], 1e-30));
}
if (truth) layers.error = mean.map((value, i) => value - truth[i]);
const samples = page.samples && unpacked(page.samples, bytes(page.samples.data));
const palettes = Object.fromEntries(Object.entries(page.palettes).map(([name, text]) => [name, bytes(text)]));

/* Normal distribution function, by Abramowitz and Stegun 7.1.26: off by at most 1.5e-7. */
function below(z) {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * x);
  const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  const erf = 1 - poly * Math.exp(-x * x);
  return z >= 0 ? (1 + erf) / 2 : (1 - erf) / 2;
}

function probabilityAbove(threshold) {
  return mean.map((value, i) => below((value - threshold) / Math.max(std[i], 1e-30)));
}

/* Variance of sums over pixels, as ctuq's KeptCovariance: directions, and pixels that are independent but for smooth waves. */
const covariance = page.covariance && (() => {
  const kept = page.covariance;
  const [rows, columns] = kept.shape;
  const steps = new Float32Array(bytes(kept.steps).buffer);
  const codes = new Int8Array(bytes(kept.directions).buffer);
  const own = wide(kept.own);
  const inverse = new Float32Array(bytes(kept.inverse).buffer);
  const pixels = rows * columns;
  const cosines = (n, full) => Array.from({ length: kept.waves }, (_, k) =>
    Float64Array.from({ length: n }, (__, i) => Math.sqrt((k ? 2 : 1) / full) * Math.cos(Math.PI * k * (i + 0.5) / n)));
  const along = { y: cosines(rows, kept.full[0]), x: cosines(columns, kept.full[1]) };

  return function variance(weights) {
    const coarse = new Float64Array(pixels);
    for (const [i, weight] of weights) {
      const y = Math.min(rows - 1, Math.floor((Math.floor(i / width) + 0.5) * rows / kept.covers[0]));
      const x = Math.min(columns - 1, Math.floor((i % width + 0.5) * columns / kept.covers[1]));
      coarse[y * columns + x] += weight;
    }
    const used = [];
    for (let p = 0; p < pixels; p += 1) if (coarse[p]) used.push(p);
    let total = 0;
    for (let k = 0; k < steps.length; k += 1) {
      let sum = 0;
      for (const p of used) sum += coarse[p] * codes[k * pixels + p];
      total += (sum * steps[k]) ** 2;
    }
    const smooth = new Float64Array(kept.waves ** 2);
    for (const p of used) {
      total += coarse[p] ** 2 * own[p] / kept.block;
      const [y, x] = [Math.floor(p / columns), p % columns];
      for (let a = 0; a < kept.waves; a += 1) {
        for (let b = 0; b < kept.waves; b += 1) smooth[a * kept.waves + b] += coarse[p] * own[p] * along.y[a][y] * along.x[b][x];
      }
    }
    for (let a = 0; a < smooth.length; a += 1) {
      for (let b = 0; b < smooth.length; b += 1) total -= smooth[a] * inverse[a * smooth.length + b] * smooth[b];
    }
    return Math.max(total, 0);
  };
})();

const minus = (text) => text.replaceAll("-", "−");
const digits = (value) => minus(Number(value.toPrecision(3)).toString());
const place = (value) => minus(value.toFixed(1));

/* Numbers to the second digit of their error bar; tiny ones with an exponent. */
function writerFor(spread) {
  const finest = spread > 0 ? spread : Math.abs(page.window[1]) / 100 || 1;
  const decimals = Math.max(0, 1 - Math.floor(Math.log10(finest)));
  if (decimals <= 8) return (value) => minus(value.toFixed(decimals));
  const digitsOf = (value) => Math.floor(Math.log10(Math.max(Math.abs(value), finest))) + decimals;
  return (value) => minus(value.toExponential(Math.min(12, Math.max(0, digitsOf(value)))));
}
