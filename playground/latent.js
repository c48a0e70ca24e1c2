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

// What a generator reads is z, and where it takes classes, a number for each of them: 1 for its class, 0 for the others.
// The inputs of n vectors that lie one after the other: `label` is the class of all, or a function of the vector's place.
export function inputs(z, {z_dim: zDim, classes}, label) {
  if (!classes) return z;
  const n = z.length / zDim, wide = zDim + classes, out = new Float32Array(n * wide);
  for (let i = 0; i < n; i++) {
    out.set(z.subarray(i * zDim, (i + 1) * zDim), i * wide);
    out[i * wide + zDim + (typeof label === "function" ? label(i) : label)] = 1;
  }
  return out;
}

// From one input to another: z on its path, classes on the straight line.
export function between(a, b, t, {z_dim: zDim, z_law: law}) {
  const path = law === "normal" ? slerp : lerp, out = lerp(a, b, t);
  out.set(path(a.subarray(0, zDim), b.subarray(0, zDim), t));
  return out;
}

// An input moved by the sum of s·v over the sliders.
export function moved(input, sliders) {
  const out = Float32Array.from(input);
  for (const [v, s] of sliders) for (let i = 0; i < v.length; i++) out[i] += s * v[i];
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

// The Python that draws the image: by seed and number where z was drawn, else by all numbers that the layers read.
export function python(name, input, origin) {
  const open = `from dcgan.networks import Generator; x = Generator.from_pretrained("${name}")`;
  if (!origin) return `import torch; ${open}.layers(torch.tensor([[${Array.from(input, decimal).join(", ")}]])).detach()`;
  const told = origin.label === undefined ? "" : `, labels=${origin.label}`;
  return `${open}.sample(1, seed=${origin.seed}, first=${origin.number}${told})`;
}
