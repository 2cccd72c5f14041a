// The maps of what an answer depends on, in the dialog of a face.

const at = (id) => document.getElementById(id);

export async function explanation(coming, bitmap) {
  at("maps").replaceChildren();
  at("maps-hint").hidden = true;
  at("maps-status").textContent = "computing the maps …";
  try {
    const { crop, maps } = await coming;
    for (const [name, grid] of Object.entries(maps)) {
      const canvas = draw(bitmap, crop, grid);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Map of the regions that support the predicted ${name}; strongest ${strongest(grid)}`);
      const figure = document.createElement("figure");
      const caption = Object.assign(document.createElement("figcaption"), { textContent: name });
      figure.append(canvas, caption);
      at("maps").append(figure);
    }
    at("maps-hint").hidden = false;
    at("maps-status").textContent = "";
  } catch (error) {
    at("maps-status").textContent = `no map: ${error.message}`;
  }
}

function strongest(grid) {
  let best = [0, 0, 0];
  grid.forEach((line, y) => line.forEach((value, x) => { if (value > best[0]) best = [value, x, y]; }));
  const third = (place, names) => names[Math.min(2, Math.floor((3 * place) / grid.length))];
  return `${third(best[2], ["above", "in the middle", "below"])}, ${third(best[1], ["left", "centre", "right"])}`;
}

// The response has the position of the crop in the image; colours of the map show sign and strength.
function draw(bitmap, crop, grid) {
  const side = 256;
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const context = canvas.getContext("2d");
  if (bitmap) {
    context.filter = "grayscale(1)";
    context.drawImage(bitmap, crop.x, crop.y, crop.side, crop.side, 0, 0, side, side);
    context.filter = "none";
  }
  const most = Math.max(1e-9, ...grid.flat().map(Math.abs));
  const small = Object.assign(document.createElement("canvas"), { width: grid.length, height: grid.length });
  const pixels = new ImageData(grid.length, grid.length);
  grid.flat().forEach((value, index) => {
    pixels.data.set(value > 0 ? [230, 120, 0] : [0, 110, 200], 4 * index);
    pixels.data[4 * index + 3] = 190 * Math.min(1, Math.abs(value) / most);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, side, side);
  return canvas;
}
