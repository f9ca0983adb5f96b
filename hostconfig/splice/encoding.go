package splice

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// bom is the byte order mark of UTF-8.
var bom = []byte("\xef\xbb\xbf")

// encoding is how a file stores its text. dockerd 23 and later go by the byte order mark (moby,
// daemon/config, getConflictFreeConfiguration).
type encoding struct {
	mark  []byte    // the byte order mark
	order byteOrder // of UTF-16; nil for UTF-8
}

// byteOrder reads and writes units of UTF-16.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

var littleEndian, bigEndian byteOrder = binary.LittleEndian, binary.BigEndian

// decode returns the text of data as UTF-8, and its encoding.
func decode(data []byte) (encoding, []byte) {
	switch {
	case bytes.HasPrefix(data, bom):
		return encoding{mark: bom}, data[len(bom):]
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		return decode16(data, littleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		return decode16(data, bigEndian)
	}
	return encoding{}, data
}

func decode16(data []byte, order byteOrder) (encoding, []byte) {
	e := encoding{mark: data[:2], order: order}
	units := make([]uint16, 0, len(data)/2)
	for rest := data[2:]; len(rest) >= 2; rest = rest[2:] {
		units = append(units, order.Uint16(rest))
	}
	text := []byte(string(utf16.Decode(units)))
	if len(data)%2 != 0 {
		text = utf8.AppendRune(text, utf8.RuneError)
	}
	return e, text
}

// encode returns text as the file stores it, without a byte order mark.
func (e encoding) encode(text string) []byte {
	if e.order == nil {
		return []byte(text)
	}
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		out = e.order.AppendUint16(out, unit)
	}
	return out
}

// size returns how many bytes of the file a part of its text takes.
func (e encoding) size(text []byte) int {
	if e.order == nil {
		return len(text)
	}
	n := 0
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		n += 2 * utf16.RuneLen(r)
		text = text[size:]
	}
	return n
}
