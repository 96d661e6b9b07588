"""Facts about the log schema as text: one line per type and, indented, one per member.

`of_schema` writes them down from the loaded schema by reflection; the file schema_facts.txt holds
those of comma's schema, which ours must equal. The form:

    struct NAME ID data-words pointers
    group NAME ID
    enum NAME ID
      member @ordinal type slot-offset [default VALUE] [tag NUMBER]
      member group NAME
      enumerant value
    union NAME members tag-offset       (follows the struct or group that has one)
"""

from typing import Any

_PLAIN = {
    "void": "Void",
    "bool": "Bool",
    "int8": "Int8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
    "uint8": "UInt8",
    "uint16": "UInt16",
    "uint32": "UInt32",
    "uint64": "UInt64",
    "float32": "Float32",
    "float64": "Float64",
    "text": "Text",
    "data": "Data",
    "anyPointer": "AnyPointer",
}


def of_schema(root: Any) -> list[str]:
    """Facts of the struct schema `root` and of every type that can be reached from it, sorted."""
    blocks: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    pending = [root]
    found: dict[int, Any] = {}
    while pending:
        schema = pending.pop()
        node = schema.node
        if node.id in found:
            continue
        found[node.id] = schema
        names[node.id] = node.displayName.partition(":")[2]
        if node.which() == "struct":
            for field in schema.fields.values():
                inner = _innermost(field.schema) if _has_schema(field) else None
                if inner is not None:
                    pending.append(inner)
    for identity, schema in found.items():
        block = _enum if schema.node.which() == "enum" else _struct
        blocks[identity] = block(schema, names)
    return [line for _, block in sorted((b[0], b) for b in blocks.values()) for line in block]


def _has_schema(field: Any) -> bool:
    if field.proto.which() == "group":
        return True
    kind = field.proto.slot.type
    while kind.which() == "list":
        kind = kind.list.elementType
    return kind.which() in ("struct", "enum")


def _innermost(schema: Any) -> Any:
    while hasattr(schema, "elementType"):
        schema = schema.elementType
    return schema


def _type_name(kind: Any, names: dict[int, str]) -> str:
    which = kind.which()
    if which == "list":
        return f"List({_type_name(kind.list.elementType, names)})"
    if which in ("struct", "enum"):
        return names[getattr(kind, which).typeId]
    return _PLAIN[which]


def _struct(schema: Any, names: dict[int, str]) -> list[str]:
    node = schema.node
    name = names[node.id]
    sizes = node.struct
    head = f"group {name} {node.id:#018x}"
    if not sizes.isGroup:
        head = f"struct {name} {node.id:#018x} {sizes.dataWordCount} {sizes.pointerCount}"
    lines = [head]
    for field in schema.fields.values():
        proto = field.proto
        if proto.which() == "group":
            lines.append(f"  {proto.name} group {names[proto.group.typeId]}")
            continue
        line = f"  {proto.name} @{proto.ordinal.explicit} {_type_name(proto.slot.type, names)}"
        line += f" {proto.slot.offset}"
        value = proto.slot.defaultValue
        if value.which() in ("bool", "int32", "float32") and getattr(value, value.which()):
            line += f" default {getattr(value, value.which())}"
        if proto.discriminantValue != 0xFFFF:
            line += f" tag {proto.discriminantValue}"
        lines.append(line)
    lines[1:] = sorted(lines[1:])
    if sizes.discriminantCount:
        lines.append(f"  union {sizes.discriminantCount} {sizes.discriminantOffset}")
    return lines


def _enum(schema: Any, names: dict[int, str]) -> list[str]:
    lines = [f"enum {names[schema.node.id]} {schema.node.id:#018x}"]
    members = sorted(schema.enumerants.items(), key=lambda item: item[1])
    return lines + [f"  {name} {value}" for name, value in members]


def of_json(facts: dict[str, Any]) -> list[str]:
    """The same from the published facts (log_schema.json)."""
    blocks = []
    for name, struct in facts["structs"].items():
        identity = f"{int(struct['typeId'], 16):#018x}"
        if struct["isGroup"]:
            head = f"group {name} {identity}"
        else:
            head = f"struct {name} {identity} {struct['dataWords']} {struct['pointers']}"
        members = []
        for field in struct["fields"]:
            if field.get("kind") == "group":
                members.append(f"  {field['name']} group {field['type']}")
                continue
            line = f"  {field['name']} @{field['ordinal']} {field['type']} {field['slotOffset']}"
            if "default" in field:
                line += f" default {field['default']}"
            if "unionTag" in field:
                line += f" tag {field['unionTag']}"
            members.append(line)
        block = [head, *sorted(members)]
        if "unionMembers" in struct:
            block.append(f"  union {struct['unionMembers']} {struct['unionTagOffset16']}")
        blocks.append(block)
    for name, enum in facts["enums"].items():
        enumerants = sorted(enum["enumerants"], key=lambda member: int(member["value"]))
        lines = [f"  {member['name']} {member['value']}" for member in enumerants]
        blocks.append([f"enum {name} {int(enum['typeId'], 16):#018x}", *lines])
    return [line for _, block in sorted((b[0], b) for b in blocks) for line in block]
