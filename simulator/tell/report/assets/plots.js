/* How all figures of a page look, and those that are ready to be drawn: `.plot[data-figure]` names
   the script that holds its data. */
"use strict";

const INK = "#1f2430", SOFT = "#646b79", LINE = "#e4e7ec", BLUE = "#3b75af", ORANGE = "#c96a1b";

const FONT = { family: "system-ui, -apple-system, Segoe UI, Helvetica Neue, Arial, sans-serif",
  size: 12, color: SOFT };

const CONFIG = { displaylogo: false, responsive: true, displayModeBar: "hover",
  modeBarButtonsToRemove: ["autoScale2d", "zoomIn2d", "zoomOut2d", "hoverClosestCartesian",
    "hoverCompareCartesian", "toggleSpikelines"] };

/* Text that Plotly draws as it is: it would read tags in it. */
const inert = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

const axisStyle = (given = {}) => ({ gridcolor: LINE, linecolor: "#c8ccd4", zeroline: false,
  ticks: "outside", tickcolor: "#c8ccd4", ticklen: 4, automargin: true, ...given,
  title: { standoff: 10, font: { size: 12, color: INK }, ...(given.title || {}) } });

const layoutStyle = (given = {}) => ({ font: FONT, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
  margin: { l: 56, r: 16, t: 30, b: 48 }, hoverlabel: { bgcolor: "#fff", bordercolor: "#c8ccd4",
    font: { ...FONT, color: INK }, align: "left" },
  legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12 } },
  ...given, xaxis: axisStyle(given.xaxis), yaxis: axisStyle(given.yaxis) });

for (const place of document.querySelectorAll(".plot[data-figure]")) {
  const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
  Plotly.newPlot(place, figure.data, layoutStyle(figure.layout), CONFIG);
}
