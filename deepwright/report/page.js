// Shows the page in English or Chinese, by the address's #en or #zh; reads values back from the drawn curves under the pointer; keeps opened parts
// open when a running report reloads itself. `chinese` holds every text that has a translation.
function say(text) {
  return document.documentElement.lang == 'zh' && Object.hasOwn(chinese, text) ? chinese[text] : text;
}
(function () {
  var kept = 'pre,code,script,style,svg,[translate=no]', found = [], node;
  var walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while ((node = walker.nextNode())) {
    if (Object.hasOwn(chinese, node.data) && !node.parentElement.closest(kept)) found.push([node, 'data', node.data]);
  }
  document.querySelectorAll('[aria-label]').forEach(function (element) { found.push([element, 'ariaLabel', element.ariaLabel]); });
  function choose() {
    var wanted = location.hash.slice(1);
    if (wanted != 'en' && wanted != 'zh') return;  // the address of a part of the page
    document.documentElement.lang = wanted;
    found.forEach(function (one) { one[0][one[1]] = say(one[2]); });
  }
  addEventListener('hashchange', choose);
  choose();
})();

document.querySelectorAll('.plot[data-x]').forEach(function (plot) {
  var x = plot.dataset.x.split(',').map(Number), y = plot.dataset.y.split(',').map(Number);
  var log = plot.dataset.log == '1', unit = plot.dataset.unit, tip, cross;
  var curves = [].map.call(plot.querySelectorAll('path[data-label]'), function (path) {
    var numbers = path.getAttribute('d').match(/-?\d+/g).map(Number), points = [];
    for (var i = 0; i + 1 < numbers.length; i += 2) points.push([numbers[i], numbers[i + 1]]);
    return {label: path.dataset.label, points: points};
  });
  if (!curves.length) return;

  function value(down) {
    var share = 1 - down / 400, found = log ? y[0] * Math.pow(y[1] / y[0], share) : y[0] + share * (y[1] - y[0]);
    if (unit == 'fraction') return (100 * found).toFixed(1) + '%';
    return found && Math.abs(found) < 0.001 ? found.toExponential(1) : Number(found.toPrecision(3)).toLocaleString('en');
  }
  function add(kind) {
    var element = document.createElement('div');
    element.className = kind;
    return plot.appendChild(element);
  }
  function hide() {
    if (tip) { tip.remove(); cross.remove(); tip = null; }
  }
  plot.addEventListener('pointermove', function (event) {
    var box = plot.getBoundingClientRect(), lines = [], near = null;
    var at = 1000 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    curves.forEach(function (curve) {
      var best = curve.points[0];
      curve.points.forEach(function (point) { if (Math.abs(point[0] - at) < Math.abs(best[0] - at)) best = point; });
      if (near === null || Math.abs(best[0] - at) < Math.abs(near - at)) near = best[0];
      lines.push(say(curve.label) + ' ' + value(best[1]));
    });
    if (!tip) { cross = add('cross'); tip = add('tip'); }
    tip.textContent = '';
    [say('step') + ' ' + Math.round(x[0] + near / 1000 * (x[1] - x[0]))].concat(lines).forEach(function (text) {
      var row = document.createElement('div');
      row.textContent = text;
      tip.appendChild(row);
    });
    cross.style.left = near / 10 + '%';
    tip.style.left = near < 500 ? 'calc(' + near / 10 + '% + 8px)' : 'auto';
    tip.style.right = near < 500 ? 'auto' : 'calc(' + (100 - near / 10) + '% + 8px)';
  });
  plot.addEventListener('pointerleave', hide);
});

(function () {
  var body = document.body, key = 'open:' + location.pathname, all = [].slice.call(document.querySelectorAll('details'));
  try {  // storage may be forbidden
    var open = JSON.parse(sessionStorage.getItem(key) || '[]');
    all.forEach(function (part, place) {
      if (open.indexOf(place) >= 0) part.open = true;
      part.addEventListener('toggle', function () {
        sessionStorage.setItem(key, JSON.stringify(all.map(function (one, i) { return one.open ? i : -1; })));
      });
    });
  } catch (error) {}
  if (body.dataset.running != '1') return;
  var age = document.getElementById('age'), written = Number(body.dataset.written);
  function tick() {
    var minutes = Math.floor((Date.now() / 1000 - written) / 60);
    age.textContent = minutes < 3 ? '' : ' ' + say('This page was last rewritten {0} minutes ago: the run may have stopped.').replace('{0}', minutes);
  }
  tick();
  setInterval(tick, 10000);
  setInterval(function () {
    if (document.hidden) return;
    if (document.documentElement.lang == 'zh') history.replaceState(null, '', '#zh');  // also after a link to a part
    location.reload();
  }, 30000);
})();
