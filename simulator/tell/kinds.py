"""Fields that hold one kind of a family, in the JSON schema: any of those there are."""

from dataclasses import dataclass

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hwmodels.spec import Kinded


@dataclass(frozen=True, slots=True)
class OneOf:
    """Annotation of a field that takes every kind of `family`, for its JSON schema."""

    family: type[Kinded]

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the alternatives, in the order in which kinds registered."""
        schemas = [
            handler.resolve_ref_schema(handler(kind.__pydantic_core_schema__))
            for kind in self.family.kinds.values()
        ]
        return {
            "oneOf": [each | {"required": ["kind", *each.get("required", ())]} for each in schemas]
        }
