{
  const form = document.getElementById("filter"), seen = document.getElementById("seen");
  const programs = [...document.querySelectorAll("details.program")];
  const heads = programs.map(one => one.querySelector("summary").textContent.toLowerCase());
  const fits = (kind, wanted) => wanted === "" || (wanted[0] === "!" ? kind !== wanted.slice(1) : kind === wanted);
  const apply = () => {
    const wanted = form.elements.status.value, words = form.elements.words.value.toLowerCase().split(/\s+/);
    let count = 0;
    programs.forEach((one, at) => {
      one.hidden = !(fits(one.dataset.kind, wanted) && words.every(word => heads[at].includes(word)));
      count += !one.hidden;
    });
    seen.textContent = `${count.toLocaleString("en")} shown`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  apply();
}
