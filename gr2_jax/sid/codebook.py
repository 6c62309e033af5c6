"""Codebooks: k-means++ level by level on residuals, EMA, and their use.

Letters: B vectors, L levels, C codes a level, D width of the codes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Distances decide which code an item gets: never in a reduced precision.
_EXACT = jax.lax.Precision.HIGHEST
# How far from a crowded code towards one of its items a rare code restarts.
_SPLIT = 0.1


def nearest(book: jax.Array, x: jax.Array) -> jax.Array:
  """Returns the nearest code (the first of equals) of each vector.

  Args:
    book: float32 [C, D].
    x: float32 [B, D].

  Returns:
    int32 [B].
  """
  # Codes first, and two plain reductions: XLA's argmin is several times slower
  # on a CPU, since nothing in it is vectorised.
  products = jnp.einsum('cd,bd->cb', book, x, precision=_EXACT)
  distance = (book**2).sum(-1)[:, None] - 2 * products
  codes = jnp.arange(len(book), dtype=jnp.int32)[:, None]
  least = distance.min(0, keepdims=True)
  # A vector of NaN has no nearest code; the last one keeps the index legal.
  reaching = jnp.where(distance == least, codes, len(book) - 1)
  return reaching.min(0)


def quantise(
  books: jax.Array, z: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Quantises vectors level by level; each level codes what is left over.

  r_1 = z, z_k = argmin_j |r_k - e_j|, r_(k+1) = r_k - e_(z_k) (GR2, stage
  1a).

  Args:
    books: float32 [L, C, D].
    z: float32 [B, D].

  Returns:
    (codes int32 [B, L], chosen code vectors [B, L, D], residuals r_k
    [B, L, D]). The quantised vector is the sum of the chosen over L.
  """
  codes, chosen, residuals = [], [], []
  residual = z
  for book in books:
    code = nearest(book, residual)
    codes.append(code)
    chosen.append(book[code])
    residuals.append(residual)
    residual = residual - chosen[-1]
  return tuple(jnp.stack(x, axis=1) for x in (codes, chosen, residuals))


def _means(
  x: jax.Array, code: jax.Array, codes: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the mean of each code's vectors [C, D] and their number [C, 1]."""
  # Codes first, as the fast kernels of a CPU want it.
  member = jax.nn.one_hot(code, codes, axis=0)
  total = jnp.einsum('cb,bd->cd', member, x, precision=_EXACT)
  count = member.sum(1, keepdims=True)
  return total / jnp.maximum(count, 1), count


def ema_update(
  book: jax.Array, x: jax.Array, code: jax.Array, decay: float
) -> jax.Array:
  """Moves each code towards the vectors assigned to it.

  e <- g e + (1 - g) mean of the residuals assigned [P]; a code without any
  stays.

  Args:
    book: float32 [C, D].
    x: float32 [B, D], the residuals of the book's level.
    code: int32 [B], the code of each.
    decay: g.

  Returns:
    float32 [C, D].
  """
  mean, count = _means(x, code, book.shape[0])
  return jnp.where(count > 0, decay * book + (1 - decay) * mean, book)


def kmeans_plus_plus(key: jax.Array, x: jax.Array, codes: int) -> jax.Array:
  """Draws start codes far from each other (Arthur and Vassilvitskii, 2007).

  Each next code is one of the vectors, drawn with a probability proportional
  to its squared distance from the codes so far.

  Args:
    key: of the draws.
    x: float32 [B, D].
    codes: C; where fewer vectors are distinct, codes repeat.

  Returns:
    float32 [C, D].
  """
  first_key, key = jax.random.split(key)
  first = x[jax.random.randint(first_key, (), 0, x.shape[0])]
  book = jnp.zeros((codes, x.shape[1]), x.dtype).at[0].set(first)

  def squared(code):
    return ((x - code[None, :]) ** 2).sum(-1)

  def draw(index, carry):
    book, distance = carry
    # Inverse CDF: one uniform a draw, instead of noise for each vector.
    cumulative = jnp.cumsum(distance)
    point = jax.random.uniform(jax.random.fold_in(key, index))
    chosen = jnp.searchsorted(cumulative, point * cumulative[-1], side='right')
    code = x[jnp.minimum(chosen, x.shape[0] - 1)]
    return book.at[index].set(code), jnp.minimum(distance, squared(code))

  return jax.lax.fori_loop(1, codes, draw, (book, squared(first)))[0]


def kmeans(
  key: jax.Array, x: jax.Array, codes: int, iterations: int
) -> jax.Array:
  """Clusters vectors: k-means++, then Lloyd's algorithm.

  Args:
    key: of the start.
    x: float32 [B, D].
    codes: C.
    iterations: of Lloyd's algorithm; a code without vectors stays.

  Returns:
    float32 [C, D].
  """

  def step(_, book):
    mean, count = _means(x, nearest(book, x), codes)
    return jnp.where(count > 0, mean, book)

  start = kmeans_plus_plus(key, x, codes)
  return jax.lax.fori_loop(0, iterations, step, start)


@functools.partial(jax.jit, static_argnames=('levels', 'codes', 'iterations'))
def residual_kmeans(
  key: jax.Array, z: jax.Array, levels: int, codes: int, iterations: int
) -> jax.Array:
  """Starts the codebooks of all levels, each on the residuals of the former.

  GR2's technique 1 [P].

  Args:
    key: of the starts.
    z: float32 [B, D], latent vectors.
    levels: L.
    codes: C.
    iterations: of Lloyd's algorithm, each level.

  Returns:
    float32 [L, C, D].
  """

  def level(residual, key):
    book = kmeans(key, residual, codes, iterations)
    return residual - book[nearest(book, residual)], book

  return jax.lax.scan(level, z, jax.random.split(key, levels))[1]


def random_books(
  key: jax.Array, levels: int, codes: int, width: int
) -> jax.Array:
  """Draws codebooks uniformly within 1 / C, float32 [L, C, D].

  As van den Oord et al. (arXiv 1711.00937) start theirs; collapse is likely.
  """
  shape = (levels, codes, width)
  return jax.random.uniform(key, shape, minval=-1 / codes, maxval=1 / codes)


def reset_dead(
  books: jax.Array,
  idle: jax.Array,
  codes_of_items: jax.Array,
  *,
  residuals: jax.Array,
  errors: jax.Array,
  patience: int,
) -> tuple[jax.Array, jax.Array]:
  """Restarts codes that no item of the last batches used.

  GR2's technique 4 [P]: at the worst-reconstructed sample. The first dead code
  of a level takes the worst item's residual, the next one that of the next
  worst [our choice].

  Args:
    books: float32 [L, C, D].
    idle: int32 [L, C], batches since a code was used, before this one.
    codes_of_items: int32 [B, L].
    residuals: float32 [B, L, D], r_k.
    errors: float32 [B], squared reconstruction errors.
    patience: tau, batches.

  Returns:
    (books, idle) after this batch.
  """
  count = books.shape[1]
  used = jax.nn.one_hot(codes_of_items, count, dtype=jnp.int32).sum(0) > 0
  idle = jnp.where(used, 0, idle + 1)
  dead = idle >= patience
  worst = jnp.argsort(-errors)
  turn = (jnp.cumsum(dead, axis=1) - 1) % len(errors)
  fresh = jnp.take_along_axis(
    residuals.swapaxes(0, 1), worst[turn][..., None], axis=1
  )
  return jnp.where(dead[..., None], fresh, books), jnp.where(dead, 0, idle)


def split_rare(
  books: jax.Array,
  use: jax.Array,
  codes_of_items: jax.Array,
  *,
  residuals: jax.Array,
  below: float,
  rate: float,
) -> tuple[jax.Array, jax.Array]:
  """Moves codes that few items use next to codes that many use.

  A rare code restarts as Jukebox's do (Dhariwal et al., arXiv 2005.00341), at a
  random item: the items of a batch are a random sample, so that it is likely to
  be one of a crowded code. But it starts next to that code, a tenth of the way
  to the item, and so takes half of its items, as codebooks are split by Linde,
  Buzo and Gray (IEEE Trans. Comm. 28, 1980). At the item itself it would take
  hardly any: in many dimensions the mean of a crowd is nearer to each of its
  members than another member is. The combination is our choice.

  Args:
    books: float32 [L, C, D].
    use: float32 [L, C], running share of the items times C, before this batch.
    codes_of_items: int32 [B, L], of items in random order.
    residuals: float32 [B, L, D], r_k.
    below: use under which a code moves; it then counts as evenly used.
    rate: weight of this batch in the running share.

  Returns:
    (books, use) after this batch.
  """
  batch, count = len(residuals), books.shape[1]
  share = jax.nn.one_hot(codes_of_items, count).sum(0) * (count / batch)
  use = (1 - rate) * use + rate * share
  rare = use < below
  turn = (jnp.cumsum(rare, axis=1) - 1) % batch
  item = jnp.take_along_axis(residuals.swapaxes(0, 1), turn[..., None], axis=1)
  crowded = jnp.take_along_axis(codes_of_items.T, turn, axis=1)
  start = jnp.take_along_axis(books, crowded[..., None], axis=1)
  moved = start + _SPLIT * (item - start)
  return jnp.where(rare[..., None], moved, books), jnp.where(rare, 1.0, use)


def usage(codes_of_items: np.ndarray, codes: int) -> np.ndarray:
  """Counts the items on each code.

  Args:
    codes_of_items: int [I, L].
    codes: C.

  Returns:
    int64 [L, C].
  """
  return np.stack(
    [np.bincount(column, minlength=codes) for column in codes_of_items.T]
  )


def perplexity(counts: np.ndarray) -> list[float]:
  """Returns exp(entropy) of the use of each level's codes, in 1..C.

  Args:
    counts: [L, C], not all 0 in any level.
  """
  share = np.asarray(counts, np.float64)
  share = share / share.sum(-1, keepdims=True)
  logs = np.log(share, where=share > 0, out=np.zeros_like(share))
  return np.exp(-(share * logs).sum(-1)).tolist()


def dead_codes(counts: np.ndarray) -> list[int]:
  """Returns how many codes of each level no item has; counts are [L, C]."""
  return (np.asarray(counts) == 0).sum(-1).tolist()
