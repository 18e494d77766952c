package web

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/go-analyze/charts"
)

// The size of a drawing in units of its own: about the pixels that it gets, on
// a phone as in a row of three, so that its letters are as large as others.
const (
	graphWidth  = 340
	graphHeight = 180
	graphLetter = 8.25 // points: 11 of the units
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
	theme, data := themeOf(curves), make([][]float64, len(curves))
	for i, c := range curves {
		data[i] = c.values
	}
	o := charts.NewBarChartOptionWithData(data)
	o.Theme, o.Padding, o.ValueFormatter = theme, graphPadding, format
	o.StackSeries, o.Legend.Show = charts.Ptr(true), charts.Ptr(false)
	o.CategoryAxis.Labels, o.CategoryAxis.LabelCount = labels, len(labels)
	o.CategoryAxis.LabelFontStyle.FontSize = graphLetter
	o.ValueAxis[0].Min, o.ValueAxis[0].LabelCount = charts.Ptr(0.0), graphLines
	o.ValueAxis[0].LabelFontStyle.FontSize = graphLetter
	p := charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: graphWidth, Height: graphHeight, Theme: theme})
	if err := p.BarChart(o); err != nil {
		return "", fmt.Errorf("draw %q: %w", title, err)
	}
	return drawn(title, p, curves)
}

// drawLines draws curves as lines. top is where the axis ends, nil for where the
// figures do.
func drawLines(title string, labels []string, format func(float64) string, top *float64, curves ...curve) (template.HTML, error) {
	theme, data := themeOf(curves), make([][]float64, len(curves))
	for i, c := range curves {
		data[i] = c.values
	}
	o := charts.NewLineChartOptionWithData(data)
	o.Theme, o.Padding, o.ValueFormatter = theme, graphPadding, format
	o.Legend.Show = charts.Ptr(false)
	o.Symbol, o.LineStrokeWidth = charts.Symbol{Shape: charts.SymbolCircle, Size: 2}, 2
	o.XAxis.Labels, o.XAxis.LabelCount, o.XAxis.BoundaryGap = labels, len(labels), charts.Ptr(true)
	o.XAxis.LabelFontStyle.FontSize = graphLetter
	o.YAxis[0].Min, o.YAxis[0].Max, o.YAxis[0].LabelCount = charts.Ptr(0.0), top, graphLines
	o.YAxis[0].LabelFontStyle.FontSize = graphLetter
	p := charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: graphWidth, Height: graphHeight, Theme: theme})
	if err := p.LineChart(o); err != nil {
		return "", fmt.Errorf("draw %q: %w", title, err)
	}
	return drawn(title, p, curves)
}

// graphLines is how many lines go across a drawing.
const graphLines = 5

var graphPadding = charts.Box{Top: 10, Right: 6, Bottom: 2, Left: 2, IsSet: true}

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
func drawn(title string, p *charts.Painter, curves []curve) (template.HTML, error) {
	svg, err := p.Bytes()
	if err != nil {
		return "", fmt.Errorf("draw %q: %w", title, err)
	}
	classes := map[string]string{axisColor.String(): "axis", gridColor.String(): "grid", textColor.String(): "text", "none": "none"}
	for i, c := range curves {
		classes[curveColor(i).String()] = c.class
	}
	out, err := restyled(svg, title, classes)
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
func restyled(svg []byte, title string, classes map[string]string) (string, error) {
	var out strings.Builder
	escaped := template.HTMLEscapeString
	fmt.Fprintf(&out, `<svg class="graph" viewBox="0 0 %d %d" role="img" aria-label="%s" focusable="false">`, graphWidth, graphHeight, escaped(title))
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
			for _, a := range t.Attr {
				if a.Name.Local == "style" {
					style, err := attributesOf(a.Value, classes)
					if err != nil {
						return "", err
					}
					out.WriteString(style)
					continue
				}
				for _, name := range kept {
					if a.Name.Local == name {
						fmt.Fprintf(&out, ` %s="%s"`, name, escaped(strings.ReplaceAll(a.Value, "\n", "")))
					}
				}
			}
			out.WriteString(">")
		case xml.EndElement:
			if t.Name.Local == "svg" {
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
