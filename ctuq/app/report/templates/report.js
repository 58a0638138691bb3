"use strict";
(() => {
  const page = JSON.parse(document.getElementById("viewer-data").textContent);
  const [height, width] = page.shape;
  const [left, right, bottom, top] = page.extent;
  const size = width * height;
  const byId = (id) => document.getElementById(id);
  const canvas = byId("canvas");
  const context = canvas.getContext("2d");
  canvas.width = width;
  canvas.height = height;

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const scaled = (packed, codes) => Float32Array.from(codes, (code) => packed.low + packed.step * code);
  const layers = {};
  for (const [name, packed] of Object.entries(page.layers)) {
    layers[name] = scaled(packed, new Uint16Array(bytes(packed.data).buffer));
  }
  const { mean, std, truth } = layers;
  if (std) {
    layers.lower = mean.map((value, i) => value - 1.96 * std[i]);
    layers.upper = mean.map((value, i) => value + 1.96 * std[i]);
  }
  const samples = page.samples && scaled(page.samples, bytes(page.samples.data));
  const colours = bytes(page.colours);
  const largestStd = std ? std.reduce((a, b) => Math.max(a, b), 0) : 1;

  let shown = "mean";
  let sample = 0;
  let cross = null;
  let timer = null;

  const level = (slider) => page.window[0] + (page.window[1] - page.window[0]) * slider.valueAsNumber / 100;
  const digits = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  const place = (value) => value.toFixed(1).replace("-", "−");

  function draw() {
    const values = shown === "sample" ? samples.subarray(sample * size, (sample + 1) * size) : layers[shown];
    const spread = shown === "std";
    const low = spread ? 0 : level(byId("black"));
    const high = spread ? largestStd : level(byId("white"));
    const image = context.createImageData(width, height);
    for (let i = 0; i < size; i += 1) {
      const grey = Math.round(255 * Math.min(1, Math.max(0, (values[i] - low) / Math.max(high - low, 1e-12))));
      for (let k = 0; k < 3; k += 1) image.data[4 * i + k] = spread ? colours[3 * grey + k] : grey;
      image.data[4 * i + 3] = 255;
    }
    if (cross) image.data.set([255, 80, 0, 255], 4 * (cross.y * width + cross.x));
    context.putImageData(image, 0, 0);
    byId("window").textContent = `${digits(low)} to ${digits(high)}${spread ? " (colours)" : ""}`;
    if (samples) byId("count").textContent = `sample ${sample + 1} of ${page.samples.count}`;
  }

  function readOut(x, y) {
    const i = y * width + x;
    const where = `x ${place(left + (x + 0.5) * (right - left) / width)} mm, y ${place(top - (y + 0.5) * (top - bottom) / height)} mm`;
    const decimals = Math.min(9, Math.max(0, 1 - Math.floor(Math.log10(std && std[i] > 0 ? std[i] : page.window[1] / 100))));
    const number = (value) => value.toFixed(decimals).replace("-", "−");
    let text = `${where}: ${number(mean[i])}`;
    if (std) text += ` ± ${number(std[i])} 1/mm (95 %: ${number(layers.lower[i])} to ${number(layers.upper[i])})`;
    else text += " 1/mm";
    if (truth) text += `; truth ${number(truth[i])}`;
    byId("readout").textContent = text;
  }

  function show(layer) {
    shown = layer;
    document.querySelector(`input[name=layer][value=${layer}]`).checked = true;
    draw();
  }

  function step(by) {
    sample = (sample + by + page.samples.count) % page.samples.count;
    show("sample");
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    if (samples) byId("play").textContent = "Play";
  }

  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * width);
    const y = Math.floor((event.clientY - box.top) / box.height * height);
    if (x >= 0 && x < width && y >= 0 && y < height) readOut(x, y);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const from = cross || { x: width >> 1, y: height >> 1 };
    cross = { x: Math.min(width - 1, Math.max(0, from.x + move[0])), y: Math.min(height - 1, Math.max(0, from.y + move[1])) };
    draw();
    readOut(cross.x, cross.y);
  });
  canvas.addEventListener("blur", () => { cross = null; draw(); });
  byId("controls").addEventListener("input", (event) => {
    if (event.target.name === "layer") { stop(); show(event.target.value); } else draw();
  });
  byId("controls").addEventListener("reset", () => setTimeout(() => { stop(); show("mean"); }));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  if (samples) {
    byId("previous").addEventListener("click", () => { stop(); step(-1); });
    byId("next").addEventListener("click", () => { stop(); step(1); });
    byId("play").addEventListener("click", () => {
      if (timer) { stop(); return; }
      byId("play").textContent = "Stop";
      timer = setInterval(() => step(1), 250);
    });
  }
  draw();
})();
