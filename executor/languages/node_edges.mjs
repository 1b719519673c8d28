// Who leads to whom, by number: floods it from an end or the other, and finds the way between two.

// A directed graph over `count` numbers; from[i] leads to to[i].
export class Edges {
  constructor() {
    this.from = [];
    this.to = [];
    this.count = 0;
  }

  add(from, to) {
    this.from[this.from.length] = from;
    this.to[this.to.length] = to;
  }

  // No more is added: the numbers are those below `count`.
  close(count) {
    this.count = count;
    this.forward = index(this.from, this.to, count);
    this.backward = index(this.to, this.from, count);
  }

  // Marks (one byte a number) of all from which one of `ids` can be reached, themselves among them.
  reaching(ids) {
    return flood(ids, this.backward, this.count);
  }

  // Marks of all that can be reached from `ids`.
  reached(ids) {
    return flood(ids, this.forward, this.count);
  }

  // The shortest way from `id` to a number that `found` is true for, as a list of numbers.
  way(id, found) {
    const before = new Int32Array(this.count).fill(-1);
    const queue = [id];
    before[id] = id;
    const { starts, ends } = this.forward;
    for (let i = 0; i < queue.length; i += 1) {
      const at = queue[i];
      if (found(at)) {
        const steps = [at];
        for (let step = at; step !== id; step = before[step]) steps[steps.length] = before[step];
        return steps.reverse();
      }
      for (let j = starts[at]; j < starts[at + 1]; j += 1) {
        if (before[ends[j]] < 0) {
          before[ends[j]] = at;
          queue[queue.length] = ends[j];
        }
      }
    }
    return [];
  }
}

// Where the ends of each start lie: ends[starts[n]] to ends[starts[n + 1]].
function index(from, to, count) {
  const starts = new Int32Array(count + 1);
  for (let i = 0; i < from.length; i += 1) starts[from[i] + 1] += 1;
  for (let i = 0; i < count; i += 1) starts[i + 1] += starts[i];
  const at = starts.slice();
  const ends = new Int32Array(from.length);
  for (let i = 0; i < from.length; i += 1) {
    ends[at[from[i]]] = to[i];
    at[from[i]] += 1;
  }
  return { starts, ends };
}

function flood(ids, { starts, ends }, count) {
  const marks = new Uint8Array(count);
  const stack = new Int32Array(count + 1);
  let top = 0;
  for (let i = 0; i < ids.length; i += 1) {
    if (ids[i] >= 0 && !marks[ids[i]]) {
      marks[ids[i]] = 1;
      stack[top] = ids[i];
      top += 1;
    }
  }
  while (top) {
    top -= 1;
    const at = stack[top];
    for (let j = starts[at]; j < starts[at + 1]; j += 1) {
      if (!marks[ends[j]]) {
        marks[ends[j]] = 1;
        stack[top] = ends[j];
        top += 1;
      }
    }
  }
  return marks;
}
