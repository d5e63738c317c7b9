"use strict";
(() => {
  const read = (id) => document.getElementById(id).textContent;
  const tokens = JSON.parse(read("tokens"));
  const pattern = new RegExp(Object.keys(tokens).join("|"), "g");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 640px)");
  const options = {responsive: true, displaylogo: false, plotlyServerURL: ""};
  const chosen = new Map();
  let printing = false;

  function specification(plot) {
    const text = read(plot.dataset.figure);
    const figure = JSON.parse(dark.matches && !printing ? text.replace(pattern, (token) => tokens[token]) : text);
    figure.menu = (figure.layout.updatemenus || [])[0];
    delete figure.layout.updatemenus;
    if (printing) {
      const beside = plot.closest(".grid");
      const common = figure.layout.template.layout;
      figure.layout.width = beside ? 318 : 664;
      figure.layout.height *= beside ? 0.78 : 0.7;
      common.font.size = common.xaxis.title.font.size = common.yaxis.title.font.size = 10;
    }
    if (narrow.matches && figure.layout.legend) figure.layout.legend.font = {size: 11};
    if (narrow.matches || printing) figure.layout.dragmode = false;
    return figure;
  }

  function draw(plot) {
    const figure = specification(plot);
    const settings = {...options, displayModeBar: printing || narrow.matches ? false : "hover"};
    Plotly.react(plot, figure.data, figure.layout, settings);
    plot.querySelectorAll(".main-svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
    if (!figure.menu) return;
    const index = chosen.has(plot) ? chosen.get(plot) : figure.menu.active;
    if (index !== figure.menu.active) Plotly.update(plot, ...figure.menu.buttons[index].args);
    if (!chosen.has(plot)) addPicker(plot, figure.menu);
    chosen.set(plot, index);
  }

  function addPicker(plot, menu) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    label.className = "pick";
    label.append("Variate ", select);
    menu.buttons.forEach((button, index) => select.add(new Option(button.label, index, false, index === menu.active)));
    select.addEventListener("change", () => {
      chosen.set(plot, Number(select.value));
      Plotly.update(plot, ...menu.buttons[select.value].args);
    });
    plot.closest("figure").querySelector(".head").append(label);
  }

  const drawAll = () => document.querySelectorAll(".plot").forEach(draw);
  const print = (state) => () => { printing = state; drawAll(); };

  document.querySelectorAll(".command button").forEach((button) => button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }));
  dark.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", print(true));
  window.addEventListener("afterprint", print(false));
  drawAll();
  document.documentElement.dataset.drawn = "true";
})();
