// Reads values back from the drawn curves under the pointer; keeps opened parts open when a running report reloads itself.
document.querySelectorAll('.plot[data-x]').forEach(function(plot){
  var x=plot.dataset.x.split(',').map(Number),y=plot.dataset.y.split(',').map(Number),log=plot.dataset.log=='1',unit=plot.dataset.unit;
  var curves=[].map.call(plot.querySelectorAll('path[data-label]'),function(p){
    var n=p.getAttribute('d').match(/-?\d+/g).map(Number),points=[];
    for(var i=0;i+1<n.length;i+=2)points.push([n[i],n[i+1]]);
    return {label:p.dataset.label,points:points}});
  if(!curves.length)return;
  function value(v){var s=1-v/400,w=log?y[0]*Math.pow(y[1]/y[0],s):y[0]+s*(y[1]-y[0]);
    return unit=='fraction'?(100*w).toFixed(1)+'%':Number(w.toPrecision(3)).toLocaleString('en')}
  var tip,cross;
  function hide(){if(tip){tip.remove();cross.remove();tip=null}}
  plot.addEventListener('pointermove',function(e){
    var box=plot.getBoundingClientRect(),at=1000*Math.min(1,Math.max(0,(e.clientX-box.left)/box.width)),lines=[],near=null;
    curves.forEach(function(c){var b=c.points[0];c.points.forEach(function(p){if(Math.abs(p[0]-at)<Math.abs(b[0]-at))b=p});
      if(near===null||Math.abs(b[0]-at)<Math.abs(near-at))near=b[0];lines.push(c.label+' '+value(b[1]))});
    if(!tip){tip=document.createElement('div');tip.className='tip';cross=document.createElement('div');cross.className='cross';plot.append(cross,tip)}
    tip.textContent='';['step '+Math.round(x[0]+near/1000*(x[1]-x[0]))].concat(lines).forEach(function(t){
      var row=document.createElement('div');row.textContent=t;tip.append(row)});
    cross.style.left=near/10+'%';
    if(near<500){tip.style.left='calc('+near/10+'% + 8px)';tip.style.right='auto'}else{tip.style.right='calc('+(100-near/10)+'% + 8px)';tip.style.left='auto'}});
  plot.addEventListener('pointerleave',hide)});
(function(){var body=document.body,key='open:'+location.pathname,all=document.querySelectorAll('details');
  try{var open=JSON.parse(sessionStorage.getItem(key)||'[]');all.forEach(function(d,i){if(open.indexOf(i)>=0)d.open=true;
    d.addEventListener('toggle',function(){sessionStorage.setItem(key,JSON.stringify([].map.call(all,function(d,i){return d.open?i:-1})))})})}catch(e){}
  if(body.dataset.running!='1')return;
  var age=document.getElementById('age'),written=Number(body.dataset.written);
  function tick(){var m=Math.floor((Date.now()/1000-written)/60);
    age.textContent=m<3?'':' This page was last rewritten '+m+' minutes ago: the run may have stopped.'}
  tick();setInterval(tick,10000);setInterval(function(){if(!document.hidden)location.reload()},30000)})();
