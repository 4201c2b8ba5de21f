// Quantities for people: the same forms as webapp/templatetags/energy.py, for values from the live stream.
"use strict";

window.Laadplein = (() => {
  const language = document.documentElement.lang || "en";
  const digits = (n) => new Intl.NumberFormat(language, { minimumFractionDigits: n, maximumFractionDigits: n });
  const whole = digits(0);
  const tenth = digits(1);

  function power(watts, unknown) {
    if (typeof watts !== "number") return unknown;
    const size = Math.abs(watts);
    if (size < 995) return `${whole.format(Math.round(watts) + 0)} W`;
    const [scale, prefix] = size < 995000 ? [1e3, "k"] : [1e6, "M"];
    return `${(size / scale < 99.5 ? tenth : whole).format(watts / scale)} ${prefix}W`;
  }

  function age(seconds) {
    if (seconds < 60) return `${Math.round(seconds)} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  }

  function clock(date, timeZone) {
    return new Intl.DateTimeFormat(language, {
      hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZone,
    }).format(date);
  }

  return { power, age, clock, whole, tenth };
})();
