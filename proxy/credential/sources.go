package credential

import (
	"context"
	"errors"
)

// Sources asks each source in turn. The first that knows a credential wins, with its own longest
// namespace. A source with a problem does not prevent the others from answering. If none of them
// knows a credential, its error is the result: that source might have had one.
type Sources []Source

// Lookup is [Source.Lookup].
func (s Sources) Lookup(ctx context.Context, registry, repository string) (Credential, error) {
	var troubles []error
	for _, source := range s {
		c, err := source.Lookup(ctx, registry, repository)
		if err != nil {
			troubles = append(troubles, err)
			continue
		}
		if !c.IsZero() {
			return c, nil
		}
	}
	return Credential{}, errors.Join(troubles...)
}
