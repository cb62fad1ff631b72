"""Principals: the user or the holder of the operator token who sends a request."""

from dataclasses import dataclass, replace
from typing import Final

from edgefleet.base.errors import OperatorError
from edgefleet.protocol.people import OPERATOR, ROLES, Permission, Role, least_role

SIGNED_IN: Final = "edgefleet.signed_in"
"""A key in the scope of a request: to be called once the request has shown a valid session."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The actor of a request. Two credentials of one user have one ``name``: one person.

    ``way`` is a text for the audit log, such as ``token k3f9`` or ``session (password)``.
    ``token`` is the id of the API token, if there is one.
    """

    name: str
    role: Role
    way: str
    address: str = ""
    token: str = ""
    is_operator_token: bool = False

    def may(self, permission: Permission) -> bool:
        return permission in ROLES[self.role]

    def check(self, permission: Permission, action: str) -> None:
        """Raise OperatorError ``forbidden``, naming the permission that ``action`` needs."""
        if self.may(permission):
            return
        role = least_role(permission)
        raise OperatorError(
            "forbidden",
            f"{self.name} has the role {self.role}: {action} needs the permission {permission}.",
            hint=f"Ask an admin to run `edgefleet user role {self.name} {role}`, or use the token "
            f"of another user with the role {role}.",
        )

    def named(self, person: str) -> "Principal":
        """With the operator token, the person whom the request names. Else unchanged.

        Many people share the operator token, so it names nobody; a user is never someone else.
        """
        return replace(self, name=person) if self.is_operator_token and person else self


OPERATOR_TOKEN: Final = Principal(OPERATOR, Role.ADMIN, "operator token", is_operator_token=True)
"""The holder of the token in the data folder: the first admin."""
