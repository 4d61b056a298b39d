// Shows the stream on the page itself. Without this file the link simply opens it.
const output = document.getElementById("arrivals");
const link = output.closest("li").querySelector("a.button");

link.addEventListener("click", async (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link.getAttribute("aria-disabled") === "true") return;
  link.setAttribute("aria-disabled", "true");
  output.hidden = false;
  output.textContent = "";
  try {
    const response = await fetch(link.href);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      output.append(part.value);
    }
  } catch (error) {
    output.append(`The stream broke off: ${error.message}\n`);
  } finally {
    link.removeAttribute("aria-disabled");
  }
});
