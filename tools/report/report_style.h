#pragma once

namespace ddpo {

// The style sheet of report.html; light and dark follow the reader's system.
inline constexpr char kReportStyle[] = R"css(
:root{--bg:#fbfbfa;--panel:#fff;--ink:#1c1d21;--soft:#656a73;--rule:#e2e3e6;--accent:#2563ae;--warm:#c2510c;--band:rgba(37,99,174,.13)}
@media (prefers-color-scheme:dark){:root{--bg:#15171b;--panel:#1d2025;--ink:#e9eaec;--soft:#9ba1ab;--rule:#33373e;--accent:#7fb2f0;--warm:#f0a165;--band:rgba(127,178,240,.16)}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:36px 24px 72px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
header p{margin:0;color:var(--soft)}
section{margin-top:44px}
h2{font-size:20px;margin:0 0 14px;padding-bottom:6px;border-bottom:1px solid var(--rule)}
.note{color:var(--soft);font-size:14px;margin:10px 0 16px;max-width:75ch}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:14px}
.card,.chart{background:var(--panel);border:1px solid var(--rule);border-radius:10px;padding:16px 18px}
.value{font-size:27px;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.what{color:var(--soft);font-size:13.5px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(310px,1fr));gap:14px;margin-top:14px}
.chart{padding:12px 12px 8px}
svg{display:block;width:100%;height:auto}
svg text{font-family:inherit}
.title{font-size:13.5px;font-weight:600;fill:var(--ink)}
.label{font-size:11px;fill:var(--soft);font-variant-numeric:tabular-nums}
.grid{stroke:var(--rule);stroke-width:1}
.axis{stroke:var(--soft);stroke-width:1}
.band{fill:var(--band)}
.line{fill:none;stroke:var(--accent);stroke-width:2;stroke-linejoin:round}
.line.raw{stroke-width:1;opacity:.5}
.mean{fill:none;stroke:var(--warm);stroke-width:2.2;stroke-linejoin:round}
.dot{fill:var(--accent)}
.line.raw~.dot{opacity:.5}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:16px}
figure{margin:0;background:var(--panel);border:1px solid var(--rule);border-radius:10px;padding:8px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:6px}
img{display:block;width:100%;border-radius:5px}
.pixels{image-rendering:pixelated}
figcaption{display:flex;justify-content:space-between;gap:8px;font-size:13.5px;padding:7px 3px 1px}
figcaption span{color:var(--soft);font-variant-numeric:tabular-nums;white-space:nowrap}
.scroll{overflow-x:auto}
.strip{border-spacing:5px;border-collapse:separate;margin:-5px}
.strip img{width:92px}
.strip th{font-size:12.5px;font-weight:500;color:var(--soft);text-align:center}
.strip tbody th{text-align:right;padding-right:6px;color:var(--ink);white-space:nowrap}
summary{cursor:pointer;color:var(--soft)}
pre{background:var(--panel);border:1px solid var(--rule);border-radius:10px;padding:14px 16px;overflow-x:auto;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
)css";

}  // namespace ddpo
