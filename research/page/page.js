"use strict";
const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
const read = (id) => JSON.parse($("#" + id).textContent);

// A number to two digits as one reads it: 0.053, 8.2·10⁻⁷.
function power(value) {
  if (value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 1e4)) return String(+value.toPrecision(2));
  const [digits, exponent] = value.toExponential(1).split("e");
  const raised = [...String(+exponent)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[+c])).join("");
  return `${digits}·10${raised}`;
}

// The ledger: what is shown follows from the form alone.
function ledger() {
  const form = $("#filters"), claims = $$(".claim"), parts = $$(".part");
  function filter() {
    const asked = new FormData(form), verdicts = asked.getAll("verdict");
    const words = asked.get("words").toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const claim of claims) {
      const { verdict, section, kinds, words: text } = claim.dataset;
      const fits = (!verdicts.length || verdicts.includes(verdict)) &&
        (!asked.get("section") || section === asked.get("section")) &&
        (!asked.get("kind") || kinds.split(", ").includes(asked.get("kind"))) &&
        words.every((word) => text.includes(word));
      claim.hidden = !fits;
      count += fits;
    }
    for (const part of parts) part.hidden = !$(".claim:not([hidden])", part);
    $("#matches").textContent = `${count} of ${claims.length} claims`;
    $("#nothing").hidden = count > 0;
  }
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  for (const link of $$(".count")) {
    link.addEventListener("click", () => {
      form.reset();
      for (const box of form.elements.verdict) box.checked = box.value === link.dataset.verdict;
      filter();
    });
  }
  function open() {
    const claim = location.hash.startsWith("#claim-") && document.getElementById(location.hash.slice(1));
    if (!claim) return;
    if (claim.closest(".claim").hidden) { form.reset(); filter(); }
    claim.open = true;
    claim.scrollIntoView();
  }
  addEventListener("hashchange", open);
  open();
  filter();
}

// The curves over depth. Vega is started when they come near the screen.
function depth() {
  const form = $("#depth-controls"), chart = $("#depth-chart"), tip = $("#depth-tip");
  const names = { relu: "ReLU", tanh: "tanh", sigmoid: "sigmoid", lecun: "LeCun" };
  let data, view, axis, timer, turn = Promise.resolve();
  const asked = () => {
    const values = new FormData(form);
    return { layers: values.get("layers"), axis: values.get("axis"), nets: values.getAll("net"),
      statistic: values.get("statistic"), epoch: +form.elements.epoch.value, theory: values.has("theory") };
  };
  // By layer, of the net before its first step; nothing where theory is off or has no such statistic.
  function predicted(now, net) {
    const of = data.theory[`${net}-${now.layers}`];
    return (now.theory && of && of[now.statistic]) || [];
  }
  function rows(now) {
    const found = [];
    for (const net of now.nets) {
      const [middle, low, high] = data.nets[`${net}-${now.layers}`][now.statistic].map((part) => part[now.epoch]);
      const p = predicted(now, net);
      middle.forEach((y, i) => found.push({ key: net, net: names[net], x: i + 1, y, low: low[i], high: high[i], p: p[i] }));
    }
    return found;
  }
  // The ends of the axis hold for all epochs, so that the curves move and the axis does not.
  function ends(now) {
    let least = Infinity, most = -Infinity;
    for (const net of now.nets) {
      for (const part of [...data.nets[`${net}-${now.layers}`][now.statistic], predicted(now, net)]) {
        for (const value of part.flat()) {
          if (now.axis === "log" && value <= 0) continue;
          least = Math.min(least, value);
          most = Math.max(most, value);
        }
      }
    }
    if (!(most > least)) return [1e-3, 1];
    return now.axis === "log" ? [least, most * 1.2] : [Math.min(0, least), most];
  }
  // Ticks of a log axis: seven at most, at 1, 2 and 5 over less than two decades.
  function decades(least, most) {
    const low = Math.log10(least), high = Math.log10(most), found = [];
    const first = Math.ceil(low - 1e-9), last = Math.floor(high + 1e-9), near = high - low < 2;
    const stride = near ? 1 : Math.ceil((last - first + 1) / 6);
    for (let power = near ? Math.floor(low) : first; power <= (near ? Math.ceil(high) : last); power++) {
      if (power % stride) continue;
      for (const step of near ? [1, 2, 5] : [1]) {
        const value = Number(`${step}e${power}`);
        if (least <= value * (1 + 1e-9) && value <= most * (1 + 1e-9)) found.push(value);
      }
    }
    return found;
  }
  function numbers(now, found) {
    const last = +now.layers + 1, layers = [1, Math.ceil(last / 2), last];
    const cell = (row) => `${power(row.y)} <small>${power(row.low)} to ${power(row.high)}</small>`;
    const body = now.nets.map((net) => `<tr><th scope="row">${names[net]}</th>` +
      layers.map((x) => `<td>${cell(found.find((row) => row.key === net && row.x === x))}</td>`).join("") + "</tr>");
    const heads = layers.map((x) => `<th scope="col">${x === last ? "output" : "layer " + x}</th>`);
    $("#depth-numbers").innerHTML = `<caption>${now.epoch ? "Epoch " + now.epoch : "Before the first step"}: median, lowest to highest</caption>` +
      `<thead><tr><th scope="col">net</th>${heads.join("")}</tr></thead><tbody>${body.join("")}</tbody>`;
  }
  function point(_, event, item) {
    const datum = item && item.datum;
    tip.hidden = !(datum && datum.net);
    if (tip.hidden) return;
    tip.textContent = `${datum.net}, layer ${datum.x}\n${power(datum.y)} (${power(datum.low)} to ${power(datum.high)})`
      + (datum.p ? `\ntheory ${power(datum.p)}` : "");
    const at = event.touches ? event.touches[0] : event;
    tip.style.left = `${Math.max(8, Math.min(at.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${at.clientY + 14}px`;
  }
  async function change(to) {
    if (view) view.finalize();
    axis = to;
    chart.replaceChildren();
    const made = await vegaEmbed(chart, data[to], { mode: "vega", renderer: "svg", actions: false, defaultStyle: false, tooltip: point });
    view = made.view;
    $("svg", chart).setAttribute("aria-hidden", "true");
  }
  // One drawing after the other: another axis is another chart, and takes a moment.
  function draw() {
    turn = turn.then(paint);
    return turn;
  }
  async function paint() {
    const slider = form.elements.epoch;
    slider.max = Object.values(data.nets)[0][form.elements.statistic.value][0].length - 1;
    const now = asked(), found = rows(now), [least, most] = ends(now);
    $("#epoch-says").textContent = now.epoch;
    slider.setAttribute("aria-valuetext", now.epoch ? `epoch ${now.epoch}` : "before the first step");
    if (now.axis !== axis) await change(now.axis);
    const log = now.axis === "log";
    const shown = log ? found.filter((row) => row.y > 0).map((row) => ({ ...row, low: Math.max(row.low, least) })) : found;
    view.signal("least", least).signal("most", most).signal("last", +now.layers + 1).data("curves", shown);
    if (log) view.signal("ticks", decades(least, most));
    await view.runAsync();
    chart.setAttribute("aria-label", now.nets.map((net) => {
      const of = found.filter((row) => row.key === net);
      return `${names[net]}: ${power(of[0].y)} in layer 1, ${power(of[of.length - 1].y)} in the output`;
    }).join("; ") + `. ${now.layers} hidden layers, ${now.epoch ? "epoch " + now.epoch : "before the first step"}.`);
    numbers(now, found);
  }
  function stop() {
    clearInterval(timer);
    timer = undefined;
    $("#play").setAttribute("aria-pressed", "false");
    $("#play").textContent = "Play";
  }
  function play() {
    if (timer) return stop();
    const slider = form.elements.epoch;
    if (+slider.value >= +slider.max) slider.value = 0;
    $("#play").setAttribute("aria-pressed", "true");
    $("#play").textContent = "Stop";
    draw();
    timer = setInterval(() => {
      slider.value = +slider.value + 1;
      draw();
      if (+slider.value >= +slider.max) stop();
    }, 700);
  }
  function start() {
    const script = document.createElement("script");
    script.textContent = $("#runtime").textContent;
    document.body.append(script);
    data = read("curves");
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => { if (event.target.name === "epoch") stop(); draw(); });
    $("#play").addEventListener("click", play);
    draw().then(() => { document.documentElement.dataset.depth = "ready"; });
  }
  if (!("IntersectionObserver" in window)) return start();
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    start();
  }, { rootMargin: "800px" });
  seen.observe($("#explorer"));
}

// An attacked image: original, noise, result and numbers of the cell that was chosen.
function attack(figure, about) {
  const grid = $(".grid", figure), shown = $(".shown", figure), cells = $$(".cell", grid);
  const columns = about.classes.length + 1, name = figure.dataset.grid;
  const sheets = {};
  let method = Object.keys(about.cells)[0], chosen = cells.find((cell) => cell.tabIndex === 0);
  async function sheet() {
    if (!sheets[method]) {
      const image = new Image();
      image.src = getComputedStyle(cells[0]).backgroundImage.slice(5, -2);
      await image.decode();
      sheets[method] = image;
    }
    return sheets[method];
  }
  function pixels(image, row, column) {
    const side = image.width / columns, canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, column * side, row * side, side, side, 0, 0, side, side);
    return pen.getImageData(0, 0, side, side);
  }
  function put(selector, picture, label) {
    const canvas = $(selector, shown);
    canvas.width = picture.width;
    canvas.height = picture.height;
    canvas.getContext("2d").putImageData(picture, 0, 0);
    canvas.setAttribute("aria-label", label);
  }
  // Grey images: blue takes away, orange adds. Colour images: around mid-grey.
  function noise(clean, made) {
    const picture = new ImageData(clean.width, clean.height), from = clean.data, to = made.data;
    let most = 1, grey = true;
    for (let i = 0; i < from.length; i++) if (i % 4 < 3) most = Math.max(most, Math.abs(to[i] - from[i]));
    for (let i = 0; i < from.length && grey; i += 4) grey = from[i] === from[i + 1] && from[i] === from[i + 2] && to[i] === to[i + 1];
    for (let i = 0; i < from.length; i += 4) {
      for (let c = 0; c < 3; c++) {
        const share = (to[i + c] - from[i + c]) / most;
        const end = share > 0 ? [213, 94, 0] : [0, 114, 178];
        picture.data[i + c] = grey ? 255 + Math.abs(share) * (end[c] - 255) : 128 + 127 * share;
      }
      picture.data[i + 3] = 255;
    }
    return [picture, most];
  }
  function describe(cell, row, column) {
    const actual = about.classes[about.images[row].actual], number = about.images[row].image;
    if (!cell) return [`Test image ${number}, ${actual}, as it is.`, []];
    const target = about.classes[column - 1], seen = about.classes[cell.predicted], own = target === actual;
    const share = `${(100 * cell.probability).toFixed(1)} %`;
    const said = own
      ? `${actual}, away from its own class: ${cell.success ? "seen as " + seen : "still seen as " + seen}.`
      : `${actual} toward ${target}: ${cell.success ? "reached" : "failed, seen as " + seen}.`;
    return [said, [
      ["Seen as", `${seen}, probability ${share}`],
      ["L2", cell.l2.toFixed(3)],
      ["Linf", `${Math.round(255 * cell.linf)} of 255 levels`],
      ["PSNR", `${cell.psnr.toFixed(1)} dB`],
      ["SSIM", cell.ssim.toFixed(3)],
      ["Steps", String(cell.steps)],
      ["Test image", String(number)],
    ]];
  }
  async function show(button) {
    const row = +button.dataset.row, column = +button.dataset.column, image = await sheet();
    const clean = pixels(image, row, 0), made = pixels(image, row, column), [picture, most] = noise(clean, made);
    for (const cell of cells) {
      cell.tabIndex = cell === button ? 0 : -1;
      cell.setAttribute("aria-pressed", String(cell === button));
    }
    const [said, measures] = describe(column ? about.cells[method][row][column - 1] : null, row, column);
    put(".clean", clean, "the original");
    put(".difference", picture, column ? `the noise, at most ${most} levels` : "no noise");
    put(".made", made, "the result");
    $(".scale", shown).textContent = column ? ` ±${most} levels` : " none";
    $(".says", shown).textContent = said;
    $(".measures", shown).replaceChildren(...measures.map(([name, value]) => {
      const line = document.createElement("div");
      line.append(Object.assign(document.createElement("dt"), { textContent: name }),
        Object.assign(document.createElement("dd"), { textContent: value }));
      return line;
    }));
    shown.hidden = false;
    chosen = button;
  }
  function change(to) {
    grid.classList.remove(`sheet-${name}-${method}`);
    method = to;
    grid.classList.add(`sheet-${name}-${method}`);
    for (const button of cells) {
      const column = +button.dataset.column, row = +button.dataset.row;
      if (!column) continue;
      const cell = about.cells[method][row][column - 1], own = about.images[row].actual === column - 1;
      const kind = !cell.success ? "failed" : own ? "left" : "reached";
      button.className = `cell ${kind}`;
      const [said] = describe(cell, row, column);
      button.setAttribute("aria-label", said);
    }
    for (const caption of $$("[data-method]", figure)) caption.hidden = caption.dataset.method !== method;
    show(chosen);
  }
  grid.addEventListener("click", (event) => { if (event.target.matches(".cell")) show(event.target); });
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const at = cells.indexOf(event.target), next = cells[at + step];
    if (step === undefined || at < 0 || !next) return;
    if (Math.abs(step) === 1 && next.dataset.row !== event.target.dataset.row) return;
    event.preventDefault();
    next.focus();
    show(next);
  });
  const methods = $(".methods", figure);
  if (methods) {
    methods.hidden = false;
    methods.addEventListener("change", (event) => change(event.target.value));
  }
  change(method);
}

// Which section is on the screen, for the contents at the top.
function contents() {
  if (!("IntersectionObserver" in window)) return;
  const links = new Map($$(".contents a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const link = links.get(entry.target.id);
      if (entry.isIntersecting) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-30% 0px -65% 0px" });
  for (const section of $$("main > section")) seen.observe(section);
}

ledger();
depth();
const attacks = read("attacks");
for (const figure of $$(".attack")) attack(figure, attacks[figure.dataset.grid]);
contents();
