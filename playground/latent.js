// Paths between latent vectors, numbers about images, and the line of Python that draws an image: lessons 11 and 15.

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

export const lengthOf = z => Math.sqrt(dot(z, z));

// On the straight line from a to b.
export const lerp = (a, b, t) => a.map((value, i) => value + t * (b[i] - value));

// On the arc from a to b; on the line where there is no single arc, or hardly any.
export function slerp(a, b, t) {
  const cos = dot(a, b) / (lengthOf(a) * lengthOf(b));
  if (!(Math.abs(cos) < 1 - 1e-9)) return lerp(a, b, t);
  const omega = Math.acos(cos), ofA = Math.sin((1 - t) * omega) / Math.sin(omega), ofB = Math.sin(t * omega) / Math.sin(omega);
  return a.map((value, i) => ofA * value + ofB * b[i]);
}

// z + the sum of s·v over the sliders.
export function moved(z, sliders) {
  const out = Float32Array.from(z);
  for (const [v, s] of sliders) for (let i = 0; i < out.length; i++) out[i] += s * v[i];
  return out;
}

function distance(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return Math.sqrt(sum);
}

// The median distance of an image to its nearest neighbour: dcgan.doctor.apart (the lower of two middle ones, as torch has it).
export function apart(images) {
  const nearest = images.map(a => Math.min(...images.filter(b => b !== a).map(b => distance(a, b))));
  return nearest.sort((a, b) => a - b)[Math.floor((nearest.length - 1) / 2)];
}

// The largest stride of a walk over the mean one: dcgan.latent.jump; nothing where nothing changes.
export function jump(images) {
  const strides = images.slice(1).map((x, i) => distance(x, images[i]));
  const mean = strides.reduce((a, b) => a + b, 0) / strides.length;
  return mean > 0 ? Math.max(...strides) / mean : NaN;
}

export function range(images) {
  let low = Infinity, high = -Infinity;
  for (const image of images)
    for (const value of image) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  return [low, high];
}

// The shortest decimal that is this float32 when it is read again.
export function decimal(value) {
  for (let digits = 1; digits < 9; digits++) {
    const text = String(Number(value.toPrecision(digits)));
    if (Math.fround(Number(text)) === value) return text;
  }
  return String(Number(value.toPrecision(9)));
}

// The Python that draws the image: by seed and number where z was drawn, else by its numbers.
export function python(name, z, origin) {
  const open = `Generator.from_pretrained("${name}")`;
  if (origin) return `from dcgan.networks import Generator; x = ${open}.sample(1, seed=${origin.seed}, first=${origin.number})`;
  const numbers = Array.from(z, decimal).join(", ");
  return `import torch; from dcgan.latent import draw; from dcgan.networks import Generator; x = draw(${open}, torch.tensor([[${numbers}]]))`;
}
