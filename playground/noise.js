// Latent vectors as dcgan.networks.latent makes them in Python: the same numbers for the same seed, up to the last bits
// of a logarithm. NumPy's SeedSequence turns (seed, purpose) into a start for torch's generator, a Mersenne Twister,
// whose 24-bit fractions become normal numbers in blocks of sixteen (Box and Muller).

const BLOCK = 16;

// A hash of whole numbers below 2³²: the low half of SeedSequence(words).generate_state(1, uint64) >> 1.
function hashed(words) {
  let factor = 0x43b0d7e5;
  const scramble = value => {
    value ^= factor;
    factor = Math.imul(factor, 0x931e8875);
    value = Math.imul(value, factor);
    return value ^ (value >>> 16);
  };
  const mixed = (x, y) => {
    const value = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y) | 0;
    return value ^ (value >>> 16);
  };
  const pool = [0, 1, 2, 3].map(i => scramble(words[i] ?? 0));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++)
      if (from !== to) pool[to] = mixed(pool[to], scramble(pool[from]));
  for (const word of words.slice(4))
    for (let to = 0; to < 4; to++) pool[to] = mixed(pool[to], scramble(word));
  factor = 0x8b51f9dd;
  const [low, high] = pool.slice(0, 2).map(value => {
    value ^= factor;
    factor = Math.imul(factor, 0x58f38ded);
    value = Math.imul(value, factor);
    return value ^ (value >>> 16);
  });
  return ((high & 1) << 31 | low >>> 1) >>> 0;
}

// The Mersenne Twister of Matsumoto and Nishimura: a function that gives the next fraction in [0, 1), of 24 bits.
function twister(start) {
  const state = new Int32Array(624);
  state[0] = start;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(state[i - 1] ^ state[i - 1] >>> 30, 1812433253) + i;
  let place = 624;
  return () => {
    if (place === 624) {
      for (let i = 0; i < 624; i++) {
        const y = state[i] & 0x80000000 | state[(i + 1) % 624] & 0x7fffffff;
        state[i] = state[(i + 397) % 624] ^ y >>> 1 ^ (y & 1 ? 0x9908b0df : 0);
      }
      place = 0;
    }
    let y = state[place++];
    y ^= y >>> 11;
    y ^= y << 7 & 0x9d2c5680;
    y ^= y << 15 & 0xefc60000;
    y ^= y >>> 18;
    return (y & 0xffffff) / 2 ** 24;
  };
}

// Box and Muller: sixteen fractions become sixteen normal numbers, the first eight with the last eight.
function normal(z) {
  for (let start = 0; start < z.length; start += BLOCK)
    for (let i = start; i < start + BLOCK / 2; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - z[i])), angle = 2 * Math.PI * z[i + BLOCK / 2];
      z[i] = radius * Math.cos(angle);
      z[i + BLOCK / 2] = radius * Math.sin(angle);
    }
}

// latent(n, z_dim, z_law, seed, first=first) of dcgan.networks, one vector after the other.
export function latent(n, zDim, law, seed, first = 0) {
  const next = twister(hashed([seed, 0, 1])), end = (first + n) * zDim;
  const z = Float32Array.from({length: Math.ceil(end / BLOCK) * BLOCK}, next);
  if (law === "normal") normal(z);
  else for (let i = 0; i < z.length; i++) z[i] = 2 * z[i] - 1;
  return z.slice(first * zDim, end);
}

// neighbours(z, n, reach, seed) of dcgan.latent: z itself, then n others within ±reach of it.
export function neighbours(z, n, reach, seed) {
  const next = twister(hashed([seed, 6])), all = new Float32Array((n + 1) * z.length);
  for (let i = 0; i < all.length; i++)
    all[i] = i < z.length ? z[i] : z[i % z.length] + reach * (2 * next() - 1);
  return all;
}
