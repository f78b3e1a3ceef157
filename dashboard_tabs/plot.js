// Draws one Plotly figure, and new data into it in place. What nobody sees is not drawn.

const SOURCE = new URL("component/dashboard_tabs.plot.plotlyjs/plotly-cartesian.min.js?v=PLOTLY_JS", document.baseURI).href;
const OPTIONS = { displaylogo: false, displayModeBar: false, doubleClick: "reset" };
// A cell narrower than this has no room for its number; the pointer tells it.
const TEXT_PX = 30;
const decoder = new TextDecoder();
// Of all figures of the page: those that are mounted, and the range that each group was zoomed to.
const mounted = (window.sensorPlots ??= new Set());
const zoomed = (window.sensorRanges ??= {});

// The answer names no age: without force-cache the script would be fetched at every visit.
function plotly() {
  return (window.sensorPlotly ??= fetch(SOURCE, { cache: "force-cache" })
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(`plotly.js: ${answer.status}`))))
    .then((text) => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.append(script);
      return window.Plotly;
    })
    .catch((problem) => {
      window.sensorPlotly = undefined; // the next refresh tries again
      throw problem;
    }));
}

// The page's own colours, as they are now: a change of theme repaints.
function looks(element) {
  const style = getComputedStyle(element);
  const [ink, ground, border, family] = ["text-color", "background-color", "border-color", "font"].map((name) =>
    style.getPropertyValue(`--st-${name}`).trim());
  return { ink, ground, border, family };
}

function dressed(figure, { ink, ground, border, family }, width) {
  const { layout } = figure;
  const font = { color: ink, family, size: 12 };
  for (const trace of figure.data.filter(({ type }) => type === "heatmap")) {
    trace.textfont = { ...trace.textfont, color: ink };
    if ((width - layout.margin.l) / trace.x.length < TEXT_PX) trace.texttemplate = "";
  }
  Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font,
    hoverlabel: { bgcolor: ground, bordercolor: border, font, align: "left" } });
  const range = zoomed[layout.meta.group];
  if (range) layout.xaxis = { ...layout.xaxis, autorange: false, range, autorangeoptions: undefined };
  return figure;
}

async function draw(element) {
  const Plotly = await plotly();
  if (!element.isConnected || !element.isSeen) return;
  const look = looks(element);
  const state = element.text + JSON.stringify([look, zoomed[element.group]]);
  if (state === element.drawn) return fit(element);
  element.drawn = state;
  const { data, layout } = dressed(JSON.parse(element.text), look, element.clientWidth);
  const isFirst = !element._fullLayout;
  element.isDrawing = true;
  await Plotly.react(element, data, layout, OPTIONS);
  element.isDrawing = false;
  if (isFirst) listen(element);
  fit(element);
}

// Columns take their width after the first figure is drawn, and a folded side bar gives some: the window stays as it is.
async function fit(element) {
  if (!element._fullLayout || !element.isSeen || Math.abs(element._fullLayout.width - element.clientWidth) < 1) return;
  element.isDrawing = true;
  await window.Plotly.Plots.resize(element);
  element.isDrawing = false;
}

function listen(element) {
  // plotly.js would keep a touch to itself: a finger that drags scrolls the page.
  element.addEventListener("touchstart", (touch) => touch.stopPropagation(), { capture: true, passive: true });
  element.on("plotly_relayout", (change) => {
    if (element.isDrawing || !element.group) return;
    const from = change["xaxis.range[0]"], to = change["xaxis.range[1]"];
    if (from !== undefined) zoomed[element.group] = [from, to];
    else if (change["xaxis.autorange"] || change["xaxis.range"]) delete zoomed[element.group];
    else return;
    for (const other of others(element)) draw(other);
  });
  element.on("plotly_hover", ({ xvals }) => others(element).forEach((other) => point(other, xvals?.[0])));
  element.on("plotly_unhover", () => others(element).forEach((other) => point(other)));
}

function others(element) {
  return [...mounted].filter((other) => element.group && other !== element && other.group === element.group);
}

// The line that shows in one figure the time pointed to in another.
function point(element, time) {
  const axis = element._fullLayout?.xaxis, line = element.parentElement.querySelector(".crosshair");
  const at = axis && time !== undefined ? axis.c2p(time) : -1;
  line.hidden = !(element.isSeen && at >= 0 && at <= axis._length);
  if (!line.hidden) line.style.left = `${axis._offset + at}px`;
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".plot");
  const element = root?.querySelector(".drawn");
  if (!element) return;
  element.text = decoder.decode(data);
  const { meta, height } = JSON.parse(element.text).layout;
  element.group = meta.group;
  root.querySelector("b").textContent = meta.title;
  root.querySelector("small").textContent = meta.insight;
  element.style.height = `${height}px`;
  element.setAttribute("aria-label", `${meta.title}. ${meta.insight}`);
  mounted.add(element);
  if (element.sight) draw(element);
  else {
    element.sight = new IntersectionObserver((entries) => {
      element.isSeen = entries.at(-1).isIntersecting;
      draw(element);
    }, { rootMargin: "150px", scrollMargin: "150px" });
    element.sight.observe(element);
    element.size = new ResizeObserver(() => fit(element));
    element.size.observe(element);
  }
  return () => {
    if (element.isConnected) return;
    element.sight.disconnect();
    element.size.disconnect();
    mounted.delete(element);
    window.Plotly?.purge(element);
  };
}
