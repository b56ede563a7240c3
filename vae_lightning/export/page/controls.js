// Sliders and pictures: what is on the page again and again.

/** A labelled slider; `set(value, changed)` shows a value, which may lie outside of the range. */
export function makeSlider({ id, label, min, max, step = 0.05, onInput }) {
  const container = document.createElement("div");
  container.className = "slider";
  const name = Object.assign(document.createElement("label"), { htmlFor: id, textContent: label });
  const input = Object.assign(document.createElement("input"), { id, type: "range", min, max, step });
  const output = document.createElement("output");
  output.htmlFor.add(id);
  output.setAttribute("aria-live", "off"); // a new face changes all of them
  container.append(name, output, input);
  const set = (value, changed = false) => {
    input.value = value;
    output.value = shown(value);
    container.classList.toggle("changed", changed);
    input.setAttribute("aria-valuetext", shown(value));
  };
  input.addEventListener("input", () => {
    set(Number(input.value), true);
    onInput(Number(input.value));
  });
  return { container, input, set };
}

function shown(value) {
  const rounded = Math.abs(value) < 0.005 ? 0 : value;
  return rounded.toFixed(2).replace("-", "−");
}

/** Pixels in [0, 1], channel after channel, one or three channels -> the canvas, at the picture's own size. */
export function drawPicture(canvas, pixels, size) {
  const image = new ImageData(size, size);
  const area = size * size;
  const channels = pixels.length / area;
  for (let place = 0; place < area; place += 1) {
    for (let color = 0; color < 3; color += 1) {
      image.data[4 * place + color] = Math.round(255 * pixels[(color % channels) * area + place]);
    }
    image.data[4 * place + 3] = 255;
  }
  Object.assign(canvas, { width: size, height: size });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Offers what a canvas shows as a file. */
export function savePicture(canvas, name) {
  canvas.toBlob((blob) => {
    const address = URL.createObjectURL(blob);
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }, "image/png");
}
