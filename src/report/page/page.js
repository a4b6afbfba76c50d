'use strict';
(function () {
  var data = JSON.parse(document.getElementById('points').textContent);
  var space = 'http://www.w3.org/2000/svg';

  function element(parent, name, text) {
    var made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    parent.appendChild(made);
    return made;
  }

  // Six digits are enough to tell points apart; the file has them all.
  function shown(value) {
    return value === null ? 'not finite' : String(Number(value.toPrecision(6))).replace('-', '\u2212');
  }

  // The place of the point nearest to a step; steps are in order.
  function nearest(steps, step) {
    var low = 0, high = steps.length - 1;
    while (low < high) {
      var middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle + 1; else high = middle;
    }
    return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
  }

  document.documentElement.className = 'live';
  document.querySelectorAll('figure[data-chart]').forEach(function (figure) {
    var chart = data.charts[figure.dataset.chart];
    var svg = figure.querySelector(':scope > svg');
    if (!chart || !svg) return;
    var cross = null, tip = null;

    function leave() {
      if (cross) cross.remove();
      if (tip) tip.remove();
      cross = tip = null;
    }

    function move(event) {
      var box = svg.getBoundingClientRect();
      var scale = svg.viewBox.baseVal.width / box.width;
      var share = ((event.clientX - box.left) * scale - chart.frame[0]) / (chart.frame[2] - chart.frame[0]);
      var step = chart.from + share * (chart.to - chart.from);
      var best = null;
      chart.lines.forEach(function (line) {
        if (!line.x.length) return;
        var found = line.x[nearest(line.x, step)];
        if (best === null || Math.abs(found - step) < Math.abs(best - step)) best = found;
      });
      leave();
      if (best === null || share < -0.05 || share > 1.05) return;
      var at = chart.frame[0] + (best - chart.from) / (chart.to - chart.from) * (chart.frame[2] - chart.frame[0]);
      cross = document.createElementNS(space, 'path');
      cross.setAttribute('class', 'cross');
      cross.setAttribute('d', 'M' + at + ' ' + chart.frame[1] + 'V' + chart.frame[3]);
      svg.appendChild(cross);
      tip = element(figure, 'div');
      tip.className = 'tip';
      element(tip, 'b', 'step ' + best);
      chart.lines.forEach(function (line) {
        var place = line.x.length ? nearest(line.x, best) : -1;
        if (place < 0 || line.x[place] !== best) return;
        var row = element(tip, 'div');
        element(row, 'span').className = 'dot c' + line.color;
        row.appendChild(document.createTextNode(line.label + ' ' + shown(line.y[place])));
      });
      var inside = figure.getBoundingClientRect();
      var left = box.left - inside.left + at / scale;
      var wide = tip.offsetWidth;
      left = left + 12 + wide > inside.width ? left - 12 - wide : left + 12;
      tip.style.left = Math.max(4, left) + 'px';
      tip.style.top = (box.top - inside.top + 8) + 'px';
    }

    svg.addEventListener('pointermove', move);
    svg.addEventListener('pointerdown', move);
    svg.addEventListener('pointerleave', leave);
  });

  // A link to something that is folded opens it.
  function unfold() {
    var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === 'DETAILS') target.open = true;
  }
  window.addEventListener('hashchange', unfold);
  unfold();

  // A page that is rewritten is reloaded at the same place, with the same sections open.
  var folded = Array.from(document.querySelectorAll('details'));
  var key = 'expo ' + location.pathname;
  try {
    var before = JSON.parse(sessionStorage.getItem(key));
    sessionStorage.removeItem(key);
    if (before && before.open.length === folded.length) {
      folded.forEach(function (one, place) { one.open = before.open[place]; });
    }
    if (before) window.scrollTo(0, before.scroll);
  } catch (error) { /* Where nothing can be kept the page begins at its top. */ }
  if (data.refresh) {
    setTimeout(function () {
      try {
        var open = folded.map(function (one) { return one.open; });
        sessionStorage.setItem(key, JSON.stringify({ open: open, scroll: window.scrollY }));
      } catch (error) { /* As above. */ }
      location.reload();
    }, data.refresh * 1000);
  }
})();
