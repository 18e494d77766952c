package web

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/go-analyze/charts"
)

// canvas is the room of a drawing. The library draws in whole units: a pixel has
// scale of them.
type canvas struct {
	width, height int // in about the pixels that it gets
	scale         int
	// plain has no axes, no lines and no labels.
	plain bool
	// dot is the radius of the dots of lines, in pixels.
	dot float64
}

var (
	// graph is one of a row of three, and has a phone's width: its letters are as
	// large as others.
	graph = canvas{width: 340, height: 180, scale: 1, dot: 2}
	// wideGraph is one of a row of two, with up to 168 steps.
	wideGraph = canvas{width: 440, height: 180, scale: 6, dot: 1}
	// sparkline is within a row of a table.
	sparkline = canvas{width: 136, height: 28, scale: 8, plain: true}
)

// curve is a row of figures of a drawing. Its class names its colour in the
// style sheet.
type curve struct {
	class  string
	values []float64
}

// noFigure stands where a curve has a gap.
func noFigure() float64 { return charts.GetNullValue() }

// drawBars draws curves as bars that stand on each other, one of each a label.
func drawBars(title string, labels []string, format func(float64) string, curves ...curve) (template.HTML, error) {
	return graph.bars(title, labels, nil, format, curves...)
}

// drawLines draws curves as lines. top is where the axis ends, nil for where the
// figures do.
func drawLines(title string, labels []string, format func(float64) string, top *float64, curves ...curve) (template.HTML, error) {
	return graph.lines(title, labels, nil, format, top, curves...)
}

// bars is drawBars. said are what one reads who points at a step, nil for
// nothing.
func (c canvas) bars(title string, labels, said []string, format func(float64) string, curves ...curve) (template.HTML, error) {
	theme := themeOf(curves)
	data, top := seen(curves)
	o := charts.NewBarChartOptionWithData(data)
	o.Theme, o.Padding, o.ValueFormatter = theme, c.padding(), format
	o.StackSeries, o.Legend.Show = charts.Ptr(true), charts.Ptr(false)
	c.axes(&o.CategoryAxis, &o.ValueAxis[0], labels)
	if c.plain {
		o.ValueAxis[0].Max = &top
	}
	p := c.painter(theme)
	if err := p.BarChart(o); err != nil {
		return "", fmt.Errorf("draw %q: %w", title, err)
	}
	return c.drawn(title, p, curves, said)
}

// seen are the figures of bars: what is not nothing is high enough to be seen,
// as one that failed among thousands. top is the highest sum.
func seen(curves []curve) (data [][]float64, top float64) {
	const least = 0.03
	for step := range curves[0].values {
		sum := 0.0
		for _, c := range curves {
			sum += c.values[step]
		}
		top = max(top, sum)
	}
	for _, c := range curves {
		values := slices.Clone(c.values)
		for step, v := range values {
			if v == 0 {
				values[step] = noFigure() // else a bar of no height is drawn
			} else {
				values[step] = max(v, least*top)
			}
		}
		data = append(data, values)
	}
	return data, max(top, 1)
}

// lines is drawLines, with said as bars has it.
func (c canvas) lines(title string, labels, said []string, format func(float64) string, top *float64, curves ...curve) (template.HTML, error) {
	theme, data := themeOf(curves), make([][]float64, len(curves))
	for i, c := range curves {
		data[i] = c.values
	}
	o := charts.NewLineChartOptionWithData(data)
	o.Theme, o.Padding, o.ValueFormatter = theme, c.padding(), format
	o.Legend.Show = charts.Ptr(false)
	o.Symbol, o.LineStrokeWidth = charts.Symbol{Shape: charts.SymbolCircle, Size: c.dot * float64(c.scale)}, 2
	c.axes(&o.XAxis, &o.YAxis[0], labels)
	o.YAxis[0].Max = top
	p := c.painter(theme)
	if err := p.LineChart(o); err != nil {
		return "", fmt.Errorf("draw %q: %w", title, err)
	}
	return c.drawn(title, p, curves, said)
}

const (
	graphLetter = 8.25 // points: 11 pixels
	graphLines  = 5    // go across a drawing
)

func (c canvas) painter(theme charts.ColorPalette) *charts.Painter {
	return charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: c.width * c.scale, Height: c.height * c.scale, Theme: theme})
}

// padding keeps what sticks out of a drawing in it.
func (c canvas) padding() charts.Box {
	if c.plain {
		return charts.Box{IsSet: true}
	}
	return charts.Box{Top: 10 * c.scale, Right: 6 * c.scale, Bottom: 2 * c.scale, Left: 2*c.scale + c.gap(), IsSet: true}
}

// gap is what the library, which has units and no pixels for it, lacks between
// the labels and the figures.
func (c canvas) gap() int { return 4 * (c.scale - 1) }

// axes are those of steps and of figures.
func (c canvas) axes(steps *charts.CategoryAxisOption, figures *charts.ValueAxisOption, labels []string) {
	letter := graphLetter * float64(c.scale)
	steps.Labels, steps.LabelCount, steps.LabelFontStyle.FontSize, steps.BoundaryGap = labels, len(labels), letter, charts.Ptr(true)
	figures.LabelOffset.Left = -c.gap()
	figures.Min, figures.LabelCount, figures.LabelFontStyle.FontSize = charts.Ptr(0.0), graphLines, letter
	if c.plain {
		steps.Show, figures.Show, figures.SplitLineShow = charts.Ptr(false), charts.Ptr(false), charts.Ptr(false)
	}
}

// The colours that the library draws with are names: of each there is a class in
// the style sheet, which knows light and dark.
var (
	axisColor  = charts.Color{R: 1, A: 255}
	gridColor  = charts.Color{R: 2, A: 255}
	textColor  = charts.Color{R: 3, A: 255}
	curveColor = func(i int) charts.Color { return charts.Color{R: 4, B: uint8(i), A: 255} }
)

func themeOf(curves []curve) charts.ColorPalette {
	colors := make([]charts.Color, len(curves))
	for i := range curves {
		colors[i] = curveColor(i)
	}
	return charts.MakeTheme(charts.ThemeOption{
		AxisStrokeColor: axisColor, AxisSplitLineColor: gridColor, TextColor: textColor, SeriesColors: colors,
		BackgroundColor: charts.ColorTransparent,
	})
}

// drawn gives what a painter drew as a part of a page: with classes in the place
// of styles, which the pages' policy does not allow within them.
func (c canvas) drawn(title string, p *charts.Painter, curves []curve, said []string) (template.HTML, error) {
	svg, err := p.Bytes()
	if err != nil {
		return "", fmt.Errorf("draw %q: %w", title, err)
	}
	classes := map[string]string{axisColor.String(): "axis", gridColor.String(): "grid", textColor.String(): "text", "none": "none"}
	for i, curve := range curves {
		classes[curveColor(i).String()] = curve.class
	}
	out, err := c.restyled(svg, title, classes, said)
	if err != nil {
		return "", fmt.Errorf("draw %q: %w", title, err)
	}
	return template.HTML(out), nil //nolint:gosec // written anew below, from the elements and attributes that are known
}

// drawingAttributes are those that a drawing keeps; of its elements it keeps
// those that have their names here.
var drawingAttributes = map[string][]string{
	"path":   {"d"},
	"circle": {"cx", "cy", "r"},
	"text":   {"x", "y", "transform"},
}

var errUnknownDrawing = errors.New("the library draws what is not known here")

// restyled writes a drawing anew.
func (c canvas) restyled(svg []byte, title string, classes map[string]string, said []string) (string, error) {
	var out strings.Builder
	escaped := template.HTMLEscapeString
	class := "graph"
	if c.plain {
		class = "graph plain"
	}
	fmt.Fprintf(&out, `<svg class="%s" viewBox="0 0 %d %d" role="img" aria-label="%s" focusable="false">`, class, c.width*c.scale, c.height*c.scale, escaped(title))
	from, to := 0, c.width*c.scale // where the steps are, from left to right
	axis := false
	for decoder := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if t.Name.Local == "svg" {
				continue
			}
			kept, known := drawingAttributes[t.Name.Local]
			if !known {
				return "", fmt.Errorf("%w: <%s>", errUnknownDrawing, t.Name.Local)
			}
			out.WriteString("<" + t.Name.Local)
			line := ""
			for _, a := range t.Attr {
				if a.Name.Local == "style" {
					style, err := attributesOf(a.Value, classes)
					if err != nil {
						return "", err
					}
					out.WriteString(style)
					if !axis && strings.Contains(style, `"s-axis `) { // the first one is that of the steps
						axis = true
						if _, err := fmt.Sscanf(line, "M %d %d L %d", &from, new(int), &to); err != nil {
							return "", fmt.Errorf("%w: an axis that is %q", errUnknownDrawing, line)
						}
					}
					continue
				}
				for _, name := range kept {
					if a.Name.Local == name {
						if name == "d" {
							line = strings.ReplaceAll(a.Value, "\n", " ")
						}
						fmt.Fprintf(&out, ` %s="%s"`, name, escaped(strings.ReplaceAll(a.Value, "\n", "")))
					}
				}
			}
			out.WriteString(">")
		case xml.EndElement:
			if t.Name.Local == "svg" {
				for i, text := range said {
					left, right := from+(to-from)*i/len(said), from+(to-from)*(i+1)/len(said)
					fmt.Fprintf(&out, `<rect class="step" x="%d" width="%d" height="%d"><title>%s</title></rect>`, left, right-left, c.height*c.scale, escaped(text))
				}
				out.WriteString("</svg>")
			} else {
				out.WriteString("</" + t.Name.Local + ">")
			}
		case xml.CharData:
			out.WriteString(escaped(string(t)))
		}
	}
	return out.String(), nil
}

// attributesOf gives a style as attributes: colours as classes, "s-" and the
// name for lines, "f-" and the name for areas.
func attributesOf(style string, classes map[string]string) (string, error) {
	var names []string
	var rest strings.Builder
	for declaration := range strings.SplitSeq(style, ";") {
		property, value, _ := strings.Cut(declaration, ":")
		switch property {
		case "stroke", "fill":
			class, known := classes[value]
			if strings.HasPrefix(value, "rgba(") && strings.HasSuffix(value, ",0)") || strings.HasSuffix(value, ",0.0)") {
				class, known = "none", true
			}
			if !known {
				return "", fmt.Errorf("%w: %s", errUnknownDrawing, declaration)
			}
			names = append(names, property[:1]+"-"+class)
		case "stroke-width", "font-size":
			fmt.Fprintf(&rest, ` %s="%s"`, property, template.HTMLEscapeString(value))
		}
	}
	return ` class="` + template.HTMLEscapeString(strings.Join(names, " ")) + `"` + rest.String(), nil
}
