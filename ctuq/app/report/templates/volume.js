"use strict";
(() => {
  const page = JSON.parse(document.getElementById("volume-data").textContent);
  const [depth, height, width] = page.shape;
  const byId = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const layers = {};
  for (const [name, packed] of Object.entries(page.layers)) layers[name] = { ...packed, codes: bytes(packed.data) };
  const colours = bytes(page.colours);
  let shown = "mean";

  // A picture's columns and rows as places in the volume; z rises, so the lowest slice is the last row.
  const panels = [
    { id: "across-z", fixed: "z", columns: width, rows: height, at: (c, r, p) => (p.z * height + r) * width + c, axes: ["x", "y"] },
    { id: "across-y", fixed: "y", columns: width, rows: depth, at: (c, r, p) => ((depth - 1 - r) * height + p.y) * width + c, axes: ["x", "z"] },
    { id: "across-x", fixed: "x", columns: height, rows: depth, at: (c, r, p) => ((depth - 1 - r) * height + height - 1 - c) * width + p.x, axes: ["y", "z"] },
  ];
  const place = () => ({ x: byId("at-x").valueAsNumber, y: byId("at-y").valueAsNumber, z: byId("at-z").valueAsNumber });
  const millimetres = (axis, index) => page.first[axis] + index * page.step[axis];
  const number = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  const value = (layer, index) => layer.codes[index] === 0 ? NaN : layer.low + layer.step * (layer.codes[index] - 1);

  function paint(panel, point) {
    const canvas = byId(panel.id);
    canvas.width = panel.columns;
    canvas.height = panel.rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(panel.columns, panel.rows);
    const layer = layers[shown];
    const spread = shown === "std";
    const low = spread ? 0 : page.window[0];
    const high = spread ? layer.low + 254 * layer.step : page.window[1];
    for (let r = 0; r < panel.rows; r += 1) {
      for (let c = 0; c < panel.columns; c += 1) {
        const found = value(layer, panel.at(c, r, point));
        const o = 4 * (r * panel.columns + c);
        const grey = Math.round(255 * Math.min(1, Math.max(0, (found - low) / Math.max(high - low, 1e-30))));
        for (let k = 0; k < 3; k += 1) image.data[o + k] = Number.isNaN(found) ? [70, 20, 60][k] : spread ? colours[3 * grey + k] : grey;
        image.data[o + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }

  function draw() {
    const point = place();
    for (const panel of panels) paint(panel, point);
    for (const axis of ["x", "y", "z"]) byId(`mm-${axis}`).textContent = `${number(millimetres(axis, point[axis]))} mm`;
    const index = (point.z * height + point.y) * width + point.x;
    const mean = value(layers.mean, index);
    let text = Number.isNaN(mean) ? "no value here" : number(mean);
    if (!Number.isNaN(mean) && layers.std) text += ` ± ${number(value(layers.std, index))}`;
    byId("readout").textContent = Number.isNaN(mean) ? text : `${text} 1/mm`;
  }

  for (const panel of panels) {
    byId(panel.id).addEventListener("pointerdown", (event) => {
      const box = byId(panel.id).getBoundingClientRect();
      const c = Math.min(panel.columns - 1, Math.floor((event.clientX - box.left) / box.width * panel.columns));
      const r = Math.min(panel.rows - 1, Math.floor((event.clientY - box.top) / box.height * panel.rows));
      const [across, up] = panel.axes;
      byId(`at-${across}`).value = across === "y" ? height - 1 - c : c;
      byId(`at-${up}`).value = up === "z" ? depth - 1 - r : r;
      draw();
    });
  }
  byId("controls").addEventListener("input", (event) => {
    if (event.target.name === "layer") shown = event.target.value;
    draw();
  });
  draw();
})();
