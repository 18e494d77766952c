package httpapi

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/outrider-relay/outrider/domain"
)

// v1Statuses are words of domain.ReplayStatuses.
type v1Statuses struct{ optional[[]string] }

// Schema implements huma.SchemaProvider.
func (v1Statuses) Schema(huma.Registry) *huma.Schema {
	words := make([]any, len(domain.ReplayStatuses))
	for i, word := range domain.ReplayStatuses {
		words[i] = word
	}
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString, Enum: words}}
}
