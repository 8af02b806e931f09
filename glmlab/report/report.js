// Unpacks what the page carries and draws it. Nothing is loaded from anywhere.
(function () {
  "use strict";

  const plots = Array.from(document.querySelectorAll(".plot"));
  const twins = Array.from(document.querySelectorAll("details.twin"));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const PRINTED_WIDTH = 680; // pixels between the margins of A4 and letter
  const SMALL = 700; // pixels below which titles are set smaller, lest they are cut
  const figures = {};
  const drawn = [];
  let printing = false;

  async function unpack(id) {
    const text = document.getElementById(id).textContent;
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function draw(plot) {
    const both = figures[plot.dataset.chart];
    const look = !printing && dark.matches ? both.dark : both.light;
    const layout = Object.assign({}, look.layout, { autosize: !printing });
    if (printing) layout.width = PRINTED_WIDTH;
    if (printing || plot.clientWidth < SMALL) {
      layout.title = Object.assign({}, layout.title, { font: { size: 13 } });
      layout.title.subtitle = Object.assign({}, layout.title.subtitle, { font: { size: 10 } });
    }
    return Plotly.react(plot, look.data || both.light.data, layout, {
      displaylogo: false,
      responsive: true,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: plot.dataset.chart },
    });
  }

  function cannotDraw(plot, reason) {
    plot.style.minHeight = "0";
    plot.textContent = "This browser cannot draw the chart (" + reason + "); the numbers are in the table below.";
    plot.parentElement.querySelector("details.twin").open = true;
  }

  async function drawAll() {
    const script = document.createElement("script");
    script.textContent = await unpack("plotly");
    document.head.append(script); // runs at once
    for (const plot of plots) {
      try {
        figures[plot.dataset.chart] = JSON.parse(await unpack("chart-data-" + plot.dataset.chart));
        plot.textContent = "";
        await draw(plot);
        drawn.push(plot);
      } catch (error) {
        cannotDraw(plot, error.message);
      }
    }
    dark.addEventListener("change", () => drawn.forEach(draw));
    document.documentElement.dataset.drawn = drawn.length;
  }

  // ------------------------------------------------------------------ paper
  // Folded parts are open on paper, except the tables of charts that are drawn.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = Array.from(document.querySelectorAll("details:not([open]):not(.twin)"));
    opened.forEach((part) => { part.open = true; });
    printing = true;
    drawn.forEach(draw);
  });
  addEventListener("afterprint", () => {
    opened.forEach((part) => { part.open = false; });
    printing = false;
    drawn.forEach(draw);
  });

  // ------------------------------------------------------------------ buttons
  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    const former = button.textContent;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch (refused) {
      getSelection().selectAllChildren(code); // some browsers keep the clipboard from files
      button.textContent = "selected: Ctrl-C";
    }
    setTimeout(() => { button.textContent = former; }, 2000);
  }

  document.querySelectorAll("button.copy").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  });

  const save = document.getElementById("save-trials");
  if (save && document.getElementById("trials-csv") && "DecompressionStream" in window) {
    save.hidden = false;
    save.addEventListener("click", async () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([await unpack("trials-csv")], { type: "text/csv" }));
      link.download = save.dataset.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  if (!plots.length) return;
  if (!("DecompressionStream" in window)) {
    plots.forEach((plot) => cannotDraw(plot, "it is too old to unpack it"));
    return;
  }
  twins.forEach((twin) => { twin.open = false; });
  drawAll().catch((error) => plots.forEach((plot) => cannotDraw(plot, error.message)));
})();
