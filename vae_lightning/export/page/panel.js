import { makeSlider } from "./controls.js";
import { LARGEST_TEMPERATURE, LATENT_RANGE, STRENGTH_RANGE, unmovedLatents } from "./faces.js";
import { LARGEST_SEED } from "./sampling.js";

const FIRST_LATENTS = 12;

const at = (id) => document.getElementById(id);

/** Everything that the person can move, for one model; `actions` are told what was. */
export class Panel {
  #demo;
  #actions;
  #view;
  #latents = new Map(); // number -> slider
  #attributes = new Map(); // name -> slider
  #temperature;
  #finer;
  #between;
  #allAttributes = false;

  constructor(demo, actions) {
    this.#demo = demo;
    this.#actions = actions;
    this.#makeButtons();
    this.#makeRandomFace();
    this.#makeAttributes();
    this.#makeBetween();
    this.#makeLatents();
  }

  update(view) {
    this.#view = view;
    const { face, a, b, between } = view;
    at("seed").value = face.seed;
    at("prior").value = face.prior;
    this.#temperature.set(face.temperature);
    this.#finer.set(face.finer ?? 0);
    this.#between.input.disabled = !(a && b);
    this.#between.set(between ?? 0);
    for (const [name, slider] of this.#attributes) {
      slider.set(face.attributes[name] ?? 0, Boolean(face.attributes[name]));
    }
    for (const latent of Object.keys(face.latents)) this.#addLatent(Number(latent)); // a link may name any
    const latents = unmovedLatents(this.#demo, face);
    const { mean, unit } = this.#demo.latents;
    for (const [latent, slider] of this.#latents) {
      slider.set((latents[latent] - mean[latent]) / unit[latent], latent in face.latents);
    }
  }

  #makeButtons() {
    at("new-face").onclick = () => this.#actions.drawNew();
    at("reset").onclick = () => this.#actions.reset();
    at("save").onclick = () => this.#actions.save();
    at("copy").onclick = () => this.#actions.copy();
    for (const which of ["a", "b"]) at(`keep-${which}`).onclick = () => this.#actions.keep(which);
  }

  #makeRandomFace() {
    at("seed").onchange = ({ target }) => {
      const seed = Math.min(Math.max(Math.round(Number(target.value)), 0), LARGEST_SEED);
      this.#actions.change({ seed, latents: {} });
    };
    const onInput = (temperature) => this.#actions.change({ temperature });
    this.#temperature = makeSlider({
      id: "temperature-input", label: "Temperature", min: 0, max: LARGEST_TEMPERATURE, onInput,
    });
    const { count, levels } = this.#demo.latents.finer;
    this.#finer = makeSlider({
      id: "finer-input", label: `Temperature of the finer levels (${levels})`, min: 0, max: LARGEST_TEMPERATURE,
      onInput: (finer) => this.#actions.change({ finer }),
    });
    this.#finer.container.hidden = at("finer-note").hidden = count === 0;
    at("temperature").append(this.#temperature.container, this.#finer.container);
    at("prior").append(...this.#demo.priors.map(({ name, title }) => new Option(title, name)));
    at("prior").onchange = ({ target }) => this.#actions.change({ prior: target.value });
  }

  #makeAttributes() {
    const { attributes } = this.#demo;
    at("attributes-section").hidden = attributes.length === 0;
    for (const { name } of attributes) {
      const onInput = (strength) => {
        this.#actions.change({ attributes: { ...this.#view.face.attributes, [name]: strength } });
      };
      const slider = makeSlider({
        id: `attribute-${name}`, label: readable(name), min: -STRENGTH_RANGE, max: STRENGTH_RANGE, onInput,
      });
      this.#attributes.set(name, slider);
      at("attributes").append(slider.container);
    }
    at("search").oninput = () => this.#showAttributes();
    at("more-attributes").onclick = () => {
      this.#allAttributes = !this.#allAttributes;
      this.#showAttributes();
    };
    this.#showAttributes();
  }

  #showAttributes() {
    const { attributes, first_attributes: count } = this.#demo;
    const wanted = readable(at("search").value.trim()).toLowerCase();
    let found = 0;
    attributes.forEach(({ name }, place) => {
      const matches = readable(name).toLowerCase().includes(wanted);
      const isShown = wanted ? matches : this.#allAttributes || place < count;
      this.#attributes.get(name).container.hidden = !isShown;
      found += isShown;
    });
    at("no-attribute").textContent = attributes.length && !found ? "No attribute of this name." : "";
    at("more-attributes").hidden = Boolean(wanted) || attributes.length <= count;
    at("more-attributes").textContent = this.#allAttributes ? "Show fewer" : `Show all ${attributes.length}`;
  }

  #makeBetween() {
    const onInput = (place) => this.#actions.between(place);
    this.#between = makeSlider({
      id: "between-input", label: "From A (0) to B (1)", min: 0, max: 1, step: 0.01, onInput,
    });
    at("between").append(this.#between.container);
  }

  #makeLatents() {
    const { order, ordered_by: reason, unit_note: unitNote } = this.#demo.latents;
    at("latents-note").textContent = `First those with the largest ${reason}. ${unitNote}`;
    for (const latent of order.slice(0, FIRST_LATENTS)) this.#addLatent(latent);
    at("more-latents").onclick = () => {
      const hidden = order.filter((latent) => !this.#latents.has(latent));
      for (const latent of hidden.slice(0, FIRST_LATENTS)) this.#addLatent(latent);
      this.update(this.#view);
    };
  }

  #addLatent(latent) {
    if (this.#latents.has(latent)) return;
    const onInput = (value) => this.#actions.change({ latents: { ...this.#view.face.latents, [latent]: value } });
    const slider = makeSlider({
      id: `latent-${latent}`, label: this.#demo.latents.names[latent], min: -LATENT_RANGE, max: LATENT_RANGE, onInput,
    });
    this.#latents.set(latent, slider);
    at("latents").append(slider.container);
    const left = this.#demo.latents.order.length - this.#latents.size;
    at("more-latents").hidden = left === 0;
    at("more-latents").textContent = `Show ${Math.min(left, FIRST_LATENTS)} more of ${left}`;
  }
}

const readable = (name) => name.replaceAll("_", " ");
