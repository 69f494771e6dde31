// Lays a graph out in columns from left to right: what is read stands left of what reads it.
// Pure: it takes numbers and gives numbers. Longest paths give the columns, and some sweeps over
// the columns bring boxes near to those that they are joined with, so that few arrows cross.

const SWEEPS = 8;

// `count` boxes, and arrows [from, to]; `size` has the width and height of a box and the gaps.
// Gives {at: [[x, y], …], paths: [points of each arrow], width, height}. An arrow of a cycle that
// goes back has `null`, and so has one from a box to itself.
export function layered(count, arrows, size) {
  const out = Array.from({ length: count }, () => []), back = new Set(), state = new Uint8Array(count);
  arrows.forEach(([a, b], n) => { if (a === b) back.add(n); else out[a].push([b, n]); });
  for (let root = 0; root < count; root++) {  // without recursion: chains are as long as they like
    if (state[root]) continue;
    const path = [[root, 0]]; state[root] = 1;
    while (path.length) {
      const top = path[path.length - 1], next = out[top[0]][top[1]++];
      if (!next) { state[top[0]] = 2; path.pop(); continue; }
      if (state[next[0]] === 1) back.add(next[1]); else if (!state[next[0]]) { state[next[0]] = 1; path.push([next[0], 0]); }
    }
  }
  const forward = arrows.map((arrow, n) => back.has(n) ? null : arrow), waits = new Int32Array(count), rank = new Int32Array(count), order = [];
  for (const one of forward) if (one) waits[one[1]]++;
  for (let n = 0; n < count; n++) if (!waits[n]) order.push(n);
  for (let n = 0; n < order.length; n++) for (const [b, arrow] of out[order[n]]) if (!back.has(arrow)) { rank[b] = Math.max(rank[b], rank[order[n]] + 1); if (!--waits[b]) order.push(b); }
  // Arrows over several columns get a place in each of them, so that they run between the boxes.
  const columns = [], places = [], above = [], below = [];
  const place = (column, box) => { const id = places.length; places.push({ column, box, y: 0 }); above.push([]); below.push([]); (columns[column] ??= []).push(id); return id; };
  for (let n = 0; n < count; n++) place(rank[n], n);
  const join = (a, b) => { below[a].push(b); above[b].push(a); };
  const routes = forward.map(one => {
    if (!one) return null;
    const [a, b] = one, through = [a];
    for (let column = rank[a] + 1; column < rank[b]; column++) { const id = place(column, -1); join(through[through.length - 1], id); through.push(id); }
    join(through[through.length - 1], b); through.push(b);
    return through;
  });
  const tall = id => places[id].box < 0 ? size.height / 3 : size.height, gap = size.down;
  const middle = (ids, otherwise) => ids.length ? ids.reduce((sum, id) => sum + places[id].y, 0) / ids.length : otherwise;
  const settle = column => { let y = 0; for (const id of column) { places[id].y = y + tall(id) / 2; y += tall(id) + gap; } };
  columns.forEach(settle);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const down = sweep % 2 === 0, near = down ? above : below;
    for (const column of down ? columns : [...columns].reverse()) {
      const wish = new Map(column.map(id => [id, middle(near[id], places[id].y)]));
      column.sort((a, b) => wish.get(a) - wish.get(b));
      // Each where it wishes to be, as far as the one before it leaves room; then back up as far.
      let y = -Infinity;
      for (const id of column) { places[id].y = Math.max(wish.get(id), y + tall(id) / 2); y = places[id].y + tall(id) / 2 + gap; }
      let over = 0; for (const id of column) over += places[id].y - wish.get(id);
      over /= column.length;
      for (const id of column) places[id].y -= over;
    }
  }
  let top = Infinity, bottom = -Infinity;
  places.forEach((one, id) => { top = Math.min(top, one.y - tall(id) / 2); bottom = Math.max(bottom, one.y + tall(id) / 2); });
  const x = column => column * (size.width + size.across), y = id => places[id].y - top;
  const at = []; for (let n = 0; n < count; n++) at.push([x(rank[n]), y(n) - size.height / 2]);
  const paths = routes.map(through => through && through.flatMap((id, n) => {
    const left = x(places[id].column), right = left + size.width, here = y(id);
    return n === 0 ? [[right, here]] : n === through.length - 1 ? [[left, here]] : [[left, here], [right, here]];
  }));
  return { at, paths, width: columns.length ? x(columns.length - 1) + size.width : 0, height: count ? bottom - top : 0 };
}
