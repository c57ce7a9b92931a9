"use strict";
// Elements and texts. Whatever a model wrote reaches the page here alone, as text, never as markup.

/** An element; attributes that are functions are listeners; children are elements or texts. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function swatch(colour) {
  const element = make("span", { class: "swatch", "aria-hidden": "true" });
  element.style.borderTopColor = colour; // by the object model, which the page's policy allows
  return element;
}

/** A table. Cells are texts or elements; numeric: the columns to set to the right. */
function table(headings, rows, numeric = []) {
  const kind = (column) => ({ class: numeric.includes(column) ? "number" : null });
  return make("table", {},
    make("thead", {}, make("tr", {}, headings.map((text, i) => make("th", { scope: "col", ...kind(i) }, text)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell, i) => make("td", kind(i), cell))))));
}

function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}%`;
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  return minutes < 1 ? `${seconds.toFixed(1)} s` : minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const LIVE = document.body.dataset.live === "yes";

/** The text that was packed with gzip and written in base64. */
async function unpacked(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

/** The content of a block; null when there is none of that name. */
async function block(name) {
  if (!LIVE) {
    const element = document.getElementById(`block-${name}`);
    if (!element) return null;
    return JSON.parse(element.type === "application/gzip" ? await unpacked(element.textContent) : element.textContent);
  }
  const answer = await fetch(`/blocks/${name}`, { cache: "no-store" });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}
